"""The engines that make views, by name. An engine is imported when it is used.

An engine is a function (images uint8 [B, H, W, C], ViewParams, out float [V*B, H, W, C]) -> None that fills `out`.
Tensors are contiguous.
"""

# Engines for tensors on the host; `out` is float32.
BACKENDS = {
    "numba": "fastmagn.augment.engines.numba_cpu:fill_views",
    "kornia": "fastmagn.augment.engines.kornia:fill_views",
    "dali": "fastmagn.augment.engines.dali:fill_views",
    "pil": "fastmagn.augment.engines.pil:fill_views",
}
# Engines for tensors on a CUDA device; `out` has any of `views.VIEW_DTYPES`. Other backends work on the host.
CUDA_BACKENDS = {
    "numba": "fastmagn.augment.engines.numba_cuda:fill_views",
    "kornia": "fastmagn.augment.engines.kornia:fill_views",
    "dali": "fastmagn.augment.engines.dali:fill_views",
}
# Engines that make AugMix views alone, in the images' form; see there. Others make clean views too, in floats.
AUGMIX_BACKENDS = {"numba": "fastmagn.augment.engines.numba_images:fill_augmix"}
CUDA_AUGMIX_BACKENDS = {"numba": "fastmagn.augment.engines.numba_cuda:fill_augmix"}
# Engines for policies of images on CUDA, (images uint8, ViewParams, Policy, out) -> None. Others work on the host.
CUDA_POLICY_BACKENDS = {"numba": "fastmagn.augment.engines.policy_cuda:change_images"}
# Names whose views are Pillow's: uint8 parts to the bit. The other engines' differ by some levels.
EXACT_BACKENDS = ("auto", "numba", "pil")
# Engines that know neither policies nor erasing nor noise patches.
WITHOUT_RECIPES = ("kornia", "dali")
