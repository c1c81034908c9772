#!/bin/sh
# Each framework in an environment of its own, because their OpenTelemetry pins exclude each other.
# Usage: scripts/test_frameworks.sh [NAME…]. Writes docs/frameworks-results.md and the table of docs/frameworks.md from what the tests came to.
# TASKPILOT_OBS_ENVIRONMENTS names another folder for the environments. NAME@lowest takes the lowest version that we support, in place of the newest.
set -eu
cd "$(dirname "$0")/.."
home="${TASKPILOT_OBS_ENVIRONMENTS:-$PWD/.venv-frameworks}"
results="$home/results"
mkdir -p "$results"

packages() {
    openai="opentelemetry-instrumentation-genai-openai>=1.3b0,<2"
    # What LiteLLM's proxy imports; its extra pins versions that exclude each other.
    proxy="apscheduler backoff cryptography expression fastapi fastapi-sso httpx mcp orjson pyjwt python-multipart redis"
    proxy="$proxy semver soundfile uvicorn websockets"
    case "$1" in
    agent_framework) echo "agent-framework-core>=1.23 agent-framework-openai>=1.17 $openai" ;;
    anthropic) echo "anthropic>=1.0 httpx2" ;;
    azure_monitor) echo "azure-monitor-opentelemetry-exporter opentelemetry-exporter-otlp-proto-http>=1.30" ;;
    crewai) echo "crewai>=1.15 $openai" ;;
    google_adk) echo "google-adk>=2.13" ;;
    google_genai) echo "google-genai>=2.0 httpx2" ;;
    haystack) echo "haystack-ai>=3.4 $openai" ;;
    litellm) echo "litellm>=1.103 openai>=2 $openai $proxy" ;;
    langchain) echo "langchain-core>=1.6 langchain>=1.3 langchain-openai>=1.0 langgraph>=1.2 httpx2 $openai" ;;
    mcp) echo "mcp>=2.0 httpx2" ;;
    openai) echo "openai>=2.0 httpx2 $openai" ;;
    openai_agents) echo "openai-agents>=0.24" ;;
    pydantic_ai) echo "pydantic-ai-slim[openai]>=2.60 $openai" ;;
    strands) echo "strands-agents[openai]>=1.62 $openai" ;;
    *) echo "unknown framework: $1" >&2 && exit 2 ;;
    esac
}

tests() {
    name=${1%@lowest}
    bridge=integrations/opentelemetry/tests/test_opentelemetry_frameworks.py
    adapter="integrations/$name/tests tests/test_examples.py::test_example[integrations/$name/example.py]"
    once=tests/test_recorded_once.py # generated combinations of the layers that are installed
    case "$1" in
    anthropic@lowest | openai@lowest) echo "$adapter" ;; # the bridge reads spans of later versions
    litellm) echo "$adapter $once tests/test_framework_responses.py::test_responses_of_litellm" ;;
    litellm*) echo "$adapter tests/test_framework_responses.py::test_responses_of_litellm" ;;
    langchain*) # its other tests need the packages of several providers
        handler=integrations/langchain/tests/test_langchain
        echo "${handler}_handler.py ${handler}_enforcement.py ${handler}_context.py ${handler}_langgraph.py $bridge"
        ;;
    azure_monitor) echo tests/test_backends.py ;;
    crewai | haystack) echo "$adapter $once" ;;
    google_adk | strands) echo "$adapter $bridge $once" ;;
    crewai* | google_genai* | haystack* | openai_agents*) echo "$adapter" ;;
    *) echo "$adapter $bridge" ;;
    esac
}

lowest() { # what was wanted of a framework, at its lower bounds; instrumentors stay as they are
    for wanted in $1; do
        case "$wanted" in
        opentelemetry-*) echo "$wanted" ;;
        *">="*) echo "$wanted.*" | sed 's/>=/==/' ;;
        *) echo "$wanted" ;;
        esac
    done
}

failed=0
for name in ${*:-agent_framework anthropic azure_monitor crewai google_adk google_genai haystack langchain litellm mcp openai openai_agents pydantic_ai strands}; do
    echo "== $name"
    framework=${name%@lowest}
    wanted=$(packages "$framework")
    [ "$name" = "$framework" ] || wanted=$(lowest "$wanted")
    [ -x "$home/$name/bin/python" ] || python3 -m venv "$home/$name"
    bin="$home/$name/bin"
    # shellcheck disable=SC2046,SC2086  lists of requirements and of tests
    "$bin/pip" install -q --disable-pip-version-check -e '.[otel,cli,store]' pytest pytest-timeout hypothesis $wanted
    "$bin/pip" list --format json --disable-pip-version-check >"$results/$name.packages.json"
    CI=true TASKPILOT_OBS_FRAMEWORK="$framework" "$bin/pytest" -q -m "not full" -p no:cacheprovider --junit-xml "$results/$name.xml" \
        $(tests "$name") || failed=1
done
python3 scripts/frameworks_page.py "$results"
exit "$failed"
