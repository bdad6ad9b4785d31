{{/* All that a controller does; docs/rbac.md says what for, and a test finds no 403 and no right unused. */}}
{{- define "cohort.rules" -}}
- apiGroups: [cohort.dev]
  resources: [canaryrollouts, analysistemplates, rolloutactions]
  verbs: [list, watch]
- apiGroups: [cohort.dev]
  resources: [canaryrollouts/status]
  resourceNames: [{{ include "cohort.rolloutName" . }}]
  verbs: [patch]
- apiGroups: [cohort.dev]
  resources: [rolloutactions]
  verbs: [delete]
- apiGroups: [""]
  resources: [services, pods]
  verbs: [list, watch]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [list, watch]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [create] # which cannot be bound to a name
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  resourceNames: [cohort-{{ include "cohort.rolloutName" . }}]
  verbs: [get, update]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
{{- end -}}

{{/* What people may ask for: RolloutAction's verbs in lower case. */}}
{{- define "cohort.verbs" -}}
["promote", "promotefull", "pause", "resume", "abort", "retry", "setweight"]
{{- end -}}
