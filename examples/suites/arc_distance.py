from pairs import arc_distance_numba, arc_distance_numpy

from twinkernels.bench import case, twins

arc_distance = twins(numpy=arc_distance_numpy, numba=arc_distance_numba, elementwise=True)


@case(arc_distance, "sphere", dtypes="float64")
def sphere(draw):
    return [draw.uniform(50_000) for _ in range(4)]
