#!/bin/sh
# Each framework in an environment of its own, because their OpenTelemetry pins exclude each other.
# Usage: scripts/test_frameworks.sh [NAME…]. Writes docs/frameworks-results.md from what the tests came to.
set -eu
cd "$(dirname "$0")/.."
home="$PWD/.venv-frameworks"
results="$home/results"
mkdir -p "$results"

packages() {
    openai="opentelemetry-instrumentation-genai-openai>=1.3b0,<2"
    case "$1" in
    agent_framework) echo "agent-framework-core>=1.23 agent-framework-openai>=1.17 $openai" ;;
    anthropic) echo "anthropic>=2.14" ;;
    litellm) echo "litellm>=1.100 openai>=3" ;;
    langchain) echo "langchain>=1.0 langchain-openai>=1.0 $openai" ;;
    openai) echo "openai>=3 $openai" ;;
    pydantic_ai) echo "pydantic-ai-slim[openai]>=2.60 $openai" ;;
    *) echo "unknown framework: $1" >&2 && exit 2 ;;
    esac
}

tests() {
    case "$1" in
    litellm) echo tests/test_framework_responses.py::test_responses_of_litellm ;;
    *) echo integrations/opentelemetry/tests/test_opentelemetry_frameworks.py ;;
    esac
}

failed=0
for name in ${*:-agent_framework anthropic langchain litellm openai pydantic_ai}; do
    echo "== $name"
    wanted=$(packages "$name")
    [ -x "$home/$name/bin/python" ] || python3 -m venv "$home/$name"
    bin="$home/$name/bin"
    # shellcheck disable=SC2086  a list of requirements
    "$bin/pip" install -q --disable-pip-version-check -e '.[otel,cli]' pytest pytest-timeout hypothesis $wanted
    "$bin/pip" list --format json --disable-pip-version-check >"$results/$name.packages.json"
    CI=true TASKPILOT_OBS_FRAMEWORK="$name" "$bin/pytest" -q -p no:cacheprovider --junit-xml "$results/$name.xml" \
        "$(tests "$name")" || failed=1
done
python3 scripts/frameworks_page.py "$results" >docs/frameworks-results.md
exit "$failed"
