"""The ground under the kernels. From the bottom: `tile`, a small matrix in vector registers; `places`, where things
lie in memory; `gemm`, tiles over matrices; `correlate` and `filter_gradient`, over images. For what is no contraction:
`chunks`, how work is cut, and `elementary` functions.
"""
