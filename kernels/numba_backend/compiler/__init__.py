"""From functions to machine code: `jit` is the one decorator, `passes` and `library` say what the compiler does and
`entrance` how Python comes in, `cache` keeps what it compiles, `ahead` compiles in several processes at once, `threads`
says who may run in parallel, and `program` runs many kernels in one call.
"""
