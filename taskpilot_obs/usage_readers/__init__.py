"""How providers state usage: `fields` looks into any object, `shapes` knows the counts, `envelopes` the bodies and events
around them, `streams` puts a response together.
"""
