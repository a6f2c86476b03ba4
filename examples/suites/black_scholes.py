from pairs import black_scholes_numba, black_scholes_numpy

from twinkernels.bench import case, twins

options = twins(numpy=black_scholes_numpy, numba=black_scholes_numba)


@case(options, "european", dtypes="float64")
def european(draw):
    price, strike, years = (draw.uniform(50_000, low=low, high=high) for low, high in ((10, 50), (10, 50), (1, 2)))
    return {"price": price, "strike": strike, "years": years, "rate": 0.1, "volatility": 0.2}
