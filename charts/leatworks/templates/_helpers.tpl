{{/* The name of all objects of a release. */}}
{{- define "leatworks.name" -}}
{{- if contains "leatworks" .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-leatworks" .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* What tells the controller's pods from others; it never changes. */}}
{{- define "leatworks.selector" -}}
app.kubernetes.io/name: leatworks
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: controller
{{- end -}}

{{/* Labels of all objects. */}}
{{- define "leatworks.labels" -}}
{{ include "leatworks.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* The image. */}}
{{- define "leatworks.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{/* The namespaces whose topologies the controller has, as JSON; with those of all namespaces there is no list. */}}
{{- define "leatworks.namespaces" -}}
{{ .Values.namespaces | default (list .Release.Namespace) | toJson }}
{{- end -}}

{{/* What the controller may do with topologies and what is made for them. */}}
{{- define "leatworks.rules" -}}
- apiGroups: [leatworks.dev]
  resources: [topologies]
  verbs: [get, list, watch]
- apiGroups: [leatworks.dev]
  resources: [topologies/status]
  verbs: [patch]
- apiGroups: [""]
  resources: [configmaps, services]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [apps]
  resources: [controllerrevisions]
  verbs: [get, list, create, patch, delete]
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: [get, list, watch, create, patch, delete]
# Tokens and certificates of brokers, which topologies name.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
{{- end -}}

{{/* What an adapter of job tasks may do. */}}
{{- define "leatworks.jobRules" -}}
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, create, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [list]
- apiGroups: [""]
  resources: [pods/log]
  verbs: [get]
{{- end -}}
