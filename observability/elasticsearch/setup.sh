#!/bin/bash
# Runs once: gives Kibana's own user its password, Filebeat a user that may only add audit records, and audit indices
# an end. Running it again changes nothing but passwords and retention.
set -euo pipefail
: "${ELASTIC_PASSWORD:?set ELASTIC_PASSWORD in .env, see env.example}"
: "${KIBANA_PASSWORD:?set KIBANA_PASSWORD in .env, see env.example}"
: "${FILEBEAT_PASSWORD:?set FILEBEAT_PASSWORD in .env, see env.example}"
days="${AUDIT_RETENTION_DAYS:-400}"
[[ "$days" =~ ^[1-9][0-9]*$ ]] || { echo "AUDIT_RETENTION_DAYS: given '$days'; it must be a whole number of days" >&2; exit 2; }
for name in KIBANA_PASSWORD FILEBEAT_PASSWORD; do
    # The passwords travel within JSON.
    [[ "${!name}" != *[\"\\]* ]] || { echo "$name: no quotes and no backslashes" >&2; exit 2; }
done

send() { # METHOD PATH BODY
    # The administrator's password is read from standard input: arguments can be seen by other processes.
    curl -sSf -o /dev/null --config - -X "$1" -H "Content-Type: application/json" -d "$3" \
        "${ELASTICSEARCH_URL:-http://elasticsearch:9200}$2" <<<"user = \"elastic:${ELASTIC_PASSWORD//\"/\\\"}\""
}

send POST /_security/user/kibana_system/_password "{\"password\": \"$KIBANA_PASSWORD\"}"
send PUT /_ilm/policy/taskpilot-audit \
    "{\"policy\": {\"phases\": {\"hot\": {\"actions\": {}}, \"delete\": {\"min_age\": \"${days}d\", \"actions\": {\"delete\": {}}}}}}"
send PUT /_security/role/taskpilot_audit_writer \
    '{"cluster": ["monitor", "manage_index_templates", "read_ilm"],
      "indices": [{"names": ["taskpilot-audit-*"], "privileges": ["create_doc", "create_index", "view_index_metadata"]}]}'
send PUT /_security/user/taskpilot_filebeat \
    "{\"password\": \"$FILEBEAT_PASSWORD\", \"roles\": [\"taskpilot_audit_writer\"], \"full_name\": \"Filebeat, audit log\"}"
