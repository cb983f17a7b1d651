{{/*
Of containers and volumes: the name of the chart, or the alias of the dependency.
*/}}
{{- define "initmig.name" -}}
{{ .Chart.Name | kebabcase }}
{{- end }}

{{- define "initmig.waitName" -}}
{{ include "initmig.name" . }}-wait
{{- end }}

{{/*
Short enough for the suffix of a Job: a label with the name of the Job has at most 63 characters.
*/}}
{{- define "initmig.fullname" -}}
{{- $name := include "initmig.name" . -}}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{ .Values.fullnameOverride | default $full | trunc 46 | trimSuffix "-" }}
{{- end }}

{{- define "initmig.labels" -}}
app.kubernetes.io/name: {{ include "initmig.name" . }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name (.Chart.Version | replace "+" "_") }}
{{- end }}

{{- define "initmig.image" -}}
{{- $tag := .Values.image.tag | empty | ternary "" (printf ":%s" (include "initmig.text" .Values.image.tag)) -}}
{{- $digest := .Values.image.digest | empty | ternary "" (printf "@%s" .Values.image.digest) -}}
{{- $repository := required "image.repository is not set: name the image with your migrations" .Values.image.repository -}}
{{- $release := required "image.tag is not set: name the tag of this release, or image.digest" (print $tag $digest) -}}
{{ tpl (print $repository $release) . }}
{{- end }}

{{/*
Of a value that is a string or a number. Without JSON, large numbers would be written as 1e+06.
*/}}
{{- define "initmig.text" -}}
{{ ternary . (toJson .) (kindIs "string" .) }}
{{- end }}

{{/*
A list of maps as one map, in which a later one wins, also with an empty value. (`merge` ignores those.)
*/}}
{{- define "initmig.overlay" -}}
{{- $all := dict -}}
{{- range . -}}
{{- range $key, $value := . -}}
{{- $_ := set $all $key $value -}}
{{- end -}}
{{- end -}}
{{ toYaml $all }}
{{- end }}
