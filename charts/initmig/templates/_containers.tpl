{{/*
For the chart of an application that depends on this one. Each takes the scope of the dependency:
  initContainers:
    {{- include "initmig.waitContainer" .Subcharts.initmig | nindent 8 }}
  volumes:
    {{- include "initmig.waitVolumes" .Subcharts.initmig | nindent 8 }}
*/}}

{{/*
Migrates, then exits.
*/}}
{{- define "initmig.initContainer" -}}
{{- $container := dict "root" . "name" (include "initmig.name" .) "database" .Values.database "settings" .Values.settings "resources" .Values.resources -}}
- {{ include "initmig.container" $container | nindent 2 | trim }}
{{- end }}

{{/*
Exits once every migration of the image is applied, and applies none.
*/}}
{{- define "initmig.waitContainer" -}}
{{- $settings := include "initmig.overlay" (list .Values.settings .Values.waitContainer.settings) | fromYaml -}}
{{- $container := dict "root" . "name" (include "initmig.waitName" .) "args" (list "wait") "database" .Values.waitContainer.database "settings" $settings "resources" .Values.waitContainer.resources -}}
- {{ include "initmig.container" $container | nindent 2 | trim }}
{{- end }}

{{/*
Migrates, then keeps running and answers /metrics. An init container that the kubelet keeps running.
*/}}
{{- define "initmig.sidecar" -}}
{{- if semverCompare "<1.29-0" .Capabilities.KubeVersion.Version -}}
{{- fail (printf "initmig.sidecar needs Kubernetes 1.29, this is %s: use initmig.initContainer" .Capabilities.KubeVersion.Version) -}}
{{- end -}}
{{- $settings := set (deepCopy .Values.settings) "INITMIG_LISTEN" (printf ":%d" (int .Values.sidecar.port)) -}}
{{- $container := dict "root" . "name" (include "initmig.name" .) "args" (list "serve") "database" .Values.database "settings" $settings "resources" .Values.sidecar.resources -}}
- {{ include "initmig.container" $container | nindent 2 | trim }}
  restartPolicy: Always
  ports:
    - name: initmig
      containerPort: {{ int .Values.sidecar.port }}
  startupProbe:
    httpGet: {path: /readyz, port: initmig}
    periodSeconds: 1
    failureThreshold: {{ int .Values.sidecar.startupSeconds }}
  # Only the process. A readiness probe would take the pod out of its Service whenever the database is away.
  livenessProbe:
    httpGet: {path: /healthz, port: initmig}
    periodSeconds: 10
{{- end }}

{{/*
Of initmig.initContainer and initmig.sidecar.
*/}}
{{- define "initmig.volumes" -}}
{{ include "initmig.volumesOf" (dict "root" . "name" (include "initmig.name" .) "database" .Values.database) }}
{{- end }}

{{/*
Of initmig.waitContainer.
*/}}
{{- define "initmig.waitVolumes" -}}
{{ include "initmig.volumesOf" (dict "root" . "name" (include "initmig.waitName" .) "database" .Values.waitContainer.database) }}
{{- end }}

{{/*
One container: `root`, `name`, `args`, `database`, `settings`, `resources`.
*/}}
{{- define "initmig.container" -}}
name: {{ .name }}
image: {{ include "initmig.image" .root | quote }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
{{- with .args }}
args: {{ toJson . }}
{{- end }}
env:
  {{- with .database.secret.key }}
  - name: DATABASE_URL_FILE
    value: {{ printf "/run/secrets/database/%s" . | quote }}
  {{- end }}
  {{- with .database.secret.passwordKey }}
  - name: PGPASSWORD_FILE
    value: {{ printf "/run/secrets/database/%s" . | quote }}
  {{- end }}
  {{- $secret := tpl .database.secret.name .root }}
  {{- range $name, $key := .database.secret.parameterKeys }}
  - name: {{ $name }}
    valueFrom:
      secretKeyRef: {name: {{ $secret | quote }}, key: {{ $key | quote }}}
  {{- end }}
  {{- range $name, $value := .database.parameters }}
  - name: {{ $name }}
    value: {{ include "initmig.text" $value | quote }}
  {{- end }}
  {{- range $name, $value := .settings }}
  - name: {{ $name }}
    value: {{ include "initmig.text" $value | quote }}
  {{- end }}
  {{- with .root.Values.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
volumeMounts:
  - name: {{ .name }}-database
    mountPath: /run/secrets/database
    readOnly: true
  {{- if .root.Values.migrations.configMap }}
  - name: {{ .name }}-migrations
    mountPath: /migrations
    readOnly: true
  {{- end }}
  {{- with .root.Values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
securityContext:
  {{- toYaml .root.Values.securityContext | nindent 2 }}
resources:
  {{- toYaml .resources | nindent 2 }}
terminationMessagePolicy: FallbackToLogsOnError
{{- end }}

{{/*
Its volumes: `root`, `name`, `database`.
*/}}
{{- define "initmig.volumesOf" -}}
- name: {{ .name }}-database
  secret:
    secretName: {{ tpl .database.secret.name .root | quote }}
    defaultMode: 0444
{{- if .root.Values.migrations.configMap }}
- name: {{ .name }}-migrations
  configMap:
    name: {{ tpl .root.Values.migrations.configMap .root | quote }}
    defaultMode: 0444
{{- end }}
{{- with .root.Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}
