"""One module for each library, with `prepare(case) -> Peer`. Each imports its library and nothing else of ours."""
