"""Kernels that other kernels call: numba passes their code on to the callers, and makes no machine code of it.

By itself numba makes machine code of every function that it compiles, also of those that nothing but another function
calls, and compiles them anew for every constant argument. Together that took half the time of a first run's kernels.
"""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import llvmlite.binding as llvm
from numba import config, types
from numba.core.caching import CompileResultCacheImpl, FunctionCache
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler, CompileResult, compile_result
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import CPUDispatcher


class PartLibrary(JITCodeLibrary):
    """The LLVM code of a function, which its callers link in. No machine code is made of it."""

    is_optimised = True

    @property
    def codegen(self) -> Any:
        return self  # numba asks it for `set_env`

    def set_env(self, name: str, environment: Any) -> None:
        """Do nothing: an environment belongs to machine code, and `Kernel` sets it there."""

    def get_pointer_to_function(self, name: str) -> int:
        return 0

    def serialize_using_object_code(self) -> tuple[str, str, bytes]:
        return self.name, "bitcode", self._get_module_for_linking().as_bitcode()

    def _optimize_final_module(self) -> None:
        if self.is_optimised:
            super()._optimize_final_module()

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._verify_declare_only_symbols()
        self._finalized = True


class _PartCompiler(Compiler):
    """numba's compiler, which writes to a `PartLibrary`. What is always inlined is optimised in its callers only."""

    def compile_extra(self, func: Callable) -> CompileResult:
        self.state.library = PartLibrary(self.state.targetctx.codegen(), func.__qualname__)
        self.state.library.is_optimised = not self.state.flags.forceinline
        return super().compile_extra(func)


class _PartCacheImpl(CompileResultCacheImpl):
    def get_filename_base(self, fullname: str, abiflags: str) -> str:
        return super().get_filename_base(f"part.{fullname}", abiflags)

    def rebuild(self, target_context: Any, payload: tuple) -> CompileResult:
        kept, fndesc, environment, signature, objectmode, lifted, annotation, reload_init, environments = payload
        name, _, bitcode = kept
        library = PartLibrary(target_context.codegen(), name)
        library._final_module = llvm.parse_bitcode(bitcode)
        library._finalize_final_module()
        return compile_result(
            target_context=target_context,
            typing_context=target_context.typing_context,
            library=library,
            environment=environment,
            entry_point=target_context.get_executable(library, fndesc, environment),
            fndesc=fndesc,
            type_annotation=annotation,
            signature=signature,
            objectmode=objectmode,
            lifted=lifted,
            reload_init=reload_init,
            referenced_envs=environments,
        )


class _PartCache(FunctionCache):
    _impl_class = _PartCacheImpl


class _AlwaysCompiled(CPUDispatcher):
    """A function that is compiled under NUMBA_DISABLE_JIT too: numba would fail within its own library."""

    def compile(self, sig: Any) -> Any:
        with global_compiler_lock:
            before = config.DISABLE_JIT
            config.DISABLE_JIT = 0
            try:
                return super().compile(sig)
            finally:
                config.DISABLE_JIT = before


class Part(_AlwaysCompiled):
    """A function as other kernels call it; Python cannot.

    Unless it is compiled `per_constant`, one version serves all constants of a type; LLVM still sees a constant where
    it inlines the function.
    """

    def __init__(self, function: Callable, options: dict[str, Any], per_constant: bool) -> None:
        options = {**options, "no_cpython_wrapper": True}
        super().__init__(function, targetoptions=options, pipeline_class=_PartCompiler)
        self.per_constant = per_constant

    def enable_caching(self) -> None:
        self._cache = _PartCache(self.py_func)

    def add_overload(self, result: CompileResult) -> None:
        self.overloads[tuple(result.signature.args)] = result

    def _compile_for_args(self, *args: Any, **kws: Any) -> None:
        raise TypeError(f"{self.py_func.__name__}: only other kernels can call it")

    def get_call_template(self, args: tuple, kws: dict) -> Any:
        if not self.per_constant:
            args = tuple(types.unliteral(argument) for argument in args)
            kws = {name: types.unliteral(argument) for name, argument in kws.items()}
        return super().get_call_template(args, kws)


class Kernel(_AlwaysCompiled):
    """A function as Python calls it. Other kernels call its `part`."""

    def __init__(self, function: Callable, options: dict[str, Any], make_part: Callable[[], Part]) -> None:
        super().__init__(function, targetoptions=options)
        self._make_part = make_part

    @cached_property
    def part(self) -> Part:
        return self._make_part()

    @property
    def _numba_type_(self) -> types.Dispatcher:
        return types.Dispatcher(self.part)

    def add_overload(self, result: CompileResult) -> None:
        for environment in result._find_referenced_environments():  # of the parts; `print` in a part needs its own
            result.library.codegen.set_env(environment.env_name, environment)
        super().add_overload(result)
