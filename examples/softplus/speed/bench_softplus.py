from twinkernels.bench import asv_suite

Softplus = asv_suite("../softplus.py")
