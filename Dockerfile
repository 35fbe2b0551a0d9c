# fastmagn for a machine with an NVIDIA GPU, its driver and the NVIDIA container toolkit; docs/install.md says how to run it.
# This file has not been built by the project's tests: they run where there is no Docker.
FROM python:3.11.13-slim-bookworm

# torch.compile and the caches of compiled kernels need a C++ compiler. CUDA's libraries come with PyTorch and numba-cuda.
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 fastmagn

WORKDIR /opt/fastmagn
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY configs configs
COPY kernels kernels
COPY fastmagn fastmagn
RUN pip install --no-cache-dir -c constraints.txt '.[cuda,dali,corruptions,tensorboard,timm,onnx]'
# Before NUMBA_CACHE_DIR is set: kernels beside the sources are read by every user.
RUN fastmagn warm_up

# Any user can write there: `docker run --user` may name one that the image does not know.
ENV NUMBA_CACHE_DIR=/tmp/numba \
    TORCHINDUCTOR_CACHE_DIR=/tmp/inductor \
    MPLCONFIGDIR=/tmp/matplotlib \
    PYTHONUNBUFFERED=1
USER fastmagn
WORKDIR /mnt
ENTRYPOINT ["fastmagn"]
CMD ["--help"]
