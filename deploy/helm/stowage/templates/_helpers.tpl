{{- define "stowage.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "stowage.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{- define "stowage.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "stowage.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* Labels that select the pods of a component; they never change. Argument: (dict "root" . "component" name) */}}
{{- define "stowage.selector" -}}
app.kubernetes.io/name: {{ default .root.Chart.Name .root.Values.nameOverride }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "stowage.labels" -}}
{{ include "stowage.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* Settings without secrets, as YAML of strings. The jobs run before the ConfigMap exists, so they use it too. */}}
{{- define "stowage.settings" -}}
{{- $settings := dict
  "REGISTRY_PUBLIC_HOST" .Values.hosts.registry
  "REGISTRY_PUBLIC_SCHEME" (ternary "https" "http" .Values.ingress.tls.enabled)
  "REGISTRY_ALLOWED_HOSTS" .Values.hosts.control
  "REGISTRY_TRUSTED_PROXIES" (join "," .Values.trustedProxies)
  "REGISTRY_DATA_WORKERS" (toString .Values.data.processes)
-}}
{{ merge (dict) .Values.settings $settings | toYaml }}
{{- end -}}

{{- define "stowage.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "stowage.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* The secrets are files, so that they are in no environment and no description of a pod. */}}
{{- define "stowage.secretEnv" -}}
- {name: REGISTRY_DATABASE_URL_FILE, value: /run/secrets/stowage/database-url}
- {name: REGISTRY_REDIS_URL_FILE, value: /run/secrets/stowage/redis-url}
- {name: REGISTRY_STORAGE_URL_FILE, value: /run/secrets/stowage/storage-url}
- {name: REGISTRY_SECRET_KEY_FILE, value: /run/secrets/stowage/secret-key}
{{- end -}}

{{- define "stowage.volumeMounts" -}}
- {name: secrets, mountPath: /run/secrets/stowage, readOnly: true}
- {name: state, mountPath: /var/lib/stowage}
{{- end -}}

{{/* Argument: (dict "root" . "spoolSize" size) */}}
{{- define "stowage.volumes" -}}
- name: secrets
  secret:
    secretName: {{ .root.Values.secretName }}
    defaultMode: 0440
- name: state
  emptyDir: {sizeLimit: {{ .spoolSize }}}
{{- end -}}

{{/* The part of a pod's specification that all components share. Argument: (dict "root" . "values" component) */}}
{{- define "stowage.podPlacement" -}}
{{- with .values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
