{{- define "taskpilot-obs.metadata" -}}
namespace: {{ .Release.Namespace }}
labels:
  app.kubernetes.io/name: taskpilot-obs
  app.kubernetes.io/component: observability
  {{- with .Values.labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{- /* A threshold in USD: with cents, or with as many digits as it has. */}}
{{- define "taskpilot-obs.usd" -}}
{{- $amount := float64 . -}}
{{- if eq (round $amount 2) $amount }}{{ printf "%.2f" $amount }}{{ else }}{{ printf "%.12g" $amount }}{{ end -}}
{{- end }}
