{{/*
One Job: `root`, `job` (a part of the values), `suffix` (of its name).
*/}}
{{- define "initmig.job" -}}
{{- $labels := include "initmig.labels" .root | fromYaml -}}
{{- $hook := dict -}}
{{- if .job.hooks -}}
{{- /* not hook-succeeded, which would delete the log */ -}}
{{- $hook = dict "helm.sh/hook" (join "," .job.hooks) "helm.sh/hook-weight" (toJson .job.hookWeight) "helm.sh/hook-delete-policy" "before-hook-creation" "helm.sh/hook-output-log-policy" "hook-failed" -}}
{{- end -}}
apiVersion: batch/v1
kind: Job
metadata:
  name: {{ include "initmig.jobName" . }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "initmig.overlay" (list $labels .root.Values.labels) | nindent 4 }}
  annotations:
    {{- include "initmig.overlay" (list $hook .job.annotations) | nindent 4 }}
spec:
  {{- include "initmig.jobSpec" . | nindent 2 }}
{{- end }}

{{/*
Helm deletes a hook before it creates it again. An ordinary Job cannot be changed, so a different Job has a different name.
*/}}
{{- define "initmig.jobName" -}}
{{- $hash := include "initmig.jobSpec" . | sha256sum | trunc 8 -}}
{{ include "initmig.fullname" .root }}-{{ .suffix }}{{ .job.hooks | empty | ternary (print "-" $hash) "" }}
{{- end }}

{{- define "initmig.jobSpec" -}}
{{- $name := include "initmig.name" .root -}}
{{- $labels := include "initmig.labels" .root | fromYaml -}}
{{- $values := .root.Values -}}
{{- $container := dict "root" .root "name" $name "args" .job.args "database" $values.database "settings" $values.settings "resources" $values.resources -}}
backoffLimit: {{ int .job.backoffLimit }}
{{- if not (kindIs "invalid" .job.activeDeadlineSeconds) }}
activeDeadlineSeconds: {{ int64 .job.activeDeadlineSeconds }}
{{- end }}
{{- if not (kindIs "invalid" .job.ttlSecondsAfterFinished) }}
ttlSecondsAfterFinished: {{ int64 .job.ttlSecondsAfterFinished }}
{{- end }}
{{- if semverCompare ">=1.26-0" .root.Capabilities.KubeVersion.Version }}
podFailurePolicy:
  rules:
    # A failed migration (1), a wrong setting (2), a refused login (4), a refused plan (6): another try would fail in the same way.
    - action: FailJob
      onExitCodes: {containerName: {{ $name }}, operator: In, values: [1, 2, 4, 6]}
    # The node was drained: this is not a failure.
    - action: Ignore
      onPodConditions: [{type: DisruptionTarget, status: "True"}]
    # No answer in time (3), another migrator is running (5), pending (7), stopped (143): try again, up to the backoffLimit.
    - action: Count
      onExitCodes: {containerName: {{ $name }}, operator: In, values: [3, 5, 7, 143]}
{{- end }}
template:
  metadata:
    labels:
      {{- include "initmig.overlay" (list $labels $values.labels $values.podLabels) | nindent 6 }}
    {{- with $values.podAnnotations }}
    annotations:
      {{- toYaml . | nindent 6 }}
    {{- end }}
  spec:
    restartPolicy: Never
    automountServiceAccountToken: {{ $values.serviceAccount.automountToken }}
    {{- with $values.serviceAccount.name }}
    serviceAccountName: {{ . }}
    {{- end }}
    {{- with $values.priorityClassName }}
    priorityClassName: {{ . }}
    {{- end }}
    {{- with $values.imagePullSecrets }}
    imagePullSecrets:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    securityContext:
      {{- toYaml $values.podSecurityContext | nindent 6 }}
    containers:
      - {{ include "initmig.container" $container | nindent 8 | trim }}
    volumes:
      {{- include "initmig.volumes" .root | nindent 6 }}
    {{- with $values.nodeSelector }}
    nodeSelector:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- with $values.tolerations }}
    tolerations:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- with $values.affinity }}
    affinity:
      {{- toYaml . | nindent 6 }}
    {{- end }}
{{- end }}
