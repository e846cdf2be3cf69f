{{- define "llmhost.name" -}}
{{ .Release.Name | trunc 50 | trimSuffix "-" }}
{{- end }}

{{- define "llmhost.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "llmhost.labels" -}}
{{ include "llmhost.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "llmhost.container" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* YAML's numbers come as floats here, and 10000000 would be written 1e+07. */}}
{{- define "llmhost.value" -}}
{{- if and (kindIs "float64" .) (eq . (floor .)) }}{{ int64 . }}{{ else }}{{ . }}{{ end -}}
{{- end }}

{{/* Stops the rendering where replicas would not be one service. */}}
{{- define "llmhost.check" -}}
{{- $several := or .Values.autoscaling.enabled (gt (int .Values.replicas) 1) }}
{{- range $name := list "database" "signing" }}
{{- if and $several (not (index $.Values.secrets $name).name) }}
{{- fail (printf "secrets.%s.name is empty: several replicas share it; name a secret, or set replicas to 1" $name) }}
{{- end }}
{{- end }}
{{- if and .Values.dataClaim $several }}
{{- fail "dataClaim is for one replica: several keep everything in the database" }}
{{- end }}
{{- end }}
