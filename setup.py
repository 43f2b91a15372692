"""What pyproject.toml cannot say: the kernels are compiled where there is a C compiler, and left out elsewhere."""

from glob import glob

from setuptools import Extension, setup

kernels = Extension(
    "seqssvae.kernels._recurrence",
    sorted(glob("seqssvae/kernels/*.c")),
    depends=sorted(glob("seqssvae/kernels/*.h")),
    extra_compile_args=["-std=c11", "-O3", "-pthread", "-fvisibility=hidden"],
    extra_link_args=["-pthread"],
    optional=True,
)
setup(ext_modules=[kernels])
