"""How providers state usage.

`fields` looks into any object, `shapes` knows the counts, `envelopes` the bodies and events around them, `content` what
makes a first token, and `streams` puts a response together.
"""
