package taskpilot.tool_calls

import rego.v1

default allow := false

allow if input.tool in {"search_flights", "refund"}

deny contains "refunds of more than 500 are not for agents" if {
	input.tool == "refund"
	input.args.amount > 500
}

require_approval if {
	input.tool == "refund"
	input.args.amount > 100
}
