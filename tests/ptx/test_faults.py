"""The instrument proves itself: each kind of fault is planted in a small kernel, found, and named with its place."""

import numpy as np
import pytest

pytest.importorskip("numba_cuda", reason="needs numba-cuda: install 'fastmagn[test]'")
from numba import cuda, types

from tests.ptx.arguments import numba_kernel
from tests.ptx.running import Kernel, Report, in_out, output, pointer, scratch

INTS = types.int32[::1]


def run(builder, kernel, *arguments, grid=1, block=64, **options) -> Report:
    """Run a kernel of int32 arrays from its PTX."""
    return numba_kernel(builder, kernel, types.void(*[INTS] * len(arguments))).launch(grid, block, arguments, **options)


def the_fault(report: Report, kind: str):
    """The only fault of a report, of this kind."""
    assert [fault.kind for fault in report.faults] == [kind], "\n".join(map(str, report.faults))
    assert kind in str(report.faults[0])
    assert f"PTX line {report.faults[0].statement.line}" in str(report.faults[0])
    return report.faults[0]


def numbers(count: int = 64) -> np.ndarray:
    return np.arange(count, dtype=np.int32) + 7


def nothing(count: int = 64) -> np.ndarray:
    return np.full(count, -1, np.int32)


def reverse(a, out):
    shared = cuda.shared.array(64, types.int32)
    i = cuda.threadIdx.x
    shared[i] = a[i]
    cuda.syncthreads()
    out[i] = shared[63 - i]


def reverse_without_barrier(a, out):
    shared = cuda.shared.array(64, types.int32)
    i = cuda.threadIdx.x
    shared[i] = a[i]
    out[i] = shared[63 - i]


@pytest.mark.parametrize("order", range(4))
def test_a_kernel_without_fault_gives_its_result_in_every_order(ptx_builder, order):
    out = nothing(256)

    def reverse_blocks(a, out):
        shared = cuda.shared.array(64, types.int32)
        i, first = cuda.threadIdx.x, 64 * cuda.blockIdx.x
        shared[i] = a[first + i]
        cuda.syncthreads()
        out[first + i] = shared[63 - i]

    report = run(ptx_builder, reverse_blocks, numbers(256), output(out), grid=4, order=order)
    assert not report.faults
    np.testing.assert_array_equal(out, numbers(256).reshape(4, 64)[:, ::-1].ravel())
    assert report.barriers == 4


@pytest.mark.parametrize("order", range(3))
def test_a_missing_barrier_is_a_race_in_every_order(ptx_builder, order):
    report = run(ptx_builder, reverse_without_barrier, numbers(), output(nothing()), order=order)
    races = [fault for fault in report.faults if fault.kind == "race"]
    assert races
    assert {"ld.shared.u32", "st.shared.u32"} >= {race.statement.mnemonic for race in races}
    assert races[0].where.startswith("_cudapy_smem")
    assert races[0].other.mnemonic in ("st.shared.u32", "ld.shared.u32")
    assert races[0].other_thread != races[0].thread


def test_a_race_in_global_memory_is_found_within_a_block_and_between_blocks(ptx_builder):
    def add_all(a, total):
        total[0] += a[cuda.threadIdx.x]

    total = np.zeros(1, np.int32)
    within = run(ptx_builder, add_all, numbers(), in_out(total, "total"), block=2)
    assert {fault.kind for fault in within.faults} == {"race"}
    assert {fault.where for fault in within.faults} == {"total"}
    between = run(ptx_builder, add_all, numbers(), in_out(total, "total"), grid=2, block=1)
    assert {fault.kind for fault in between.faults} == {"race"}
    assert "another block" in str(between.faults[0])


def test_atomic_additions_do_not_race(ptx_builder):
    def add_all(a, total):
        cuda.atomic.add(total, 0, a[cuda.threadIdx.x])

    total = np.zeros(1, np.int32)
    assert not run(ptx_builder, add_all, numbers(), in_out(total), grid=3).faults
    assert total[0] == 3 * numbers().sum()


def test_a_word_that_overlaps_anothers_byte_is_a_race(ptx_builder):
    """Races are found byte by byte: one thread stores a word, another a byte of it."""
    body = """
        @%p1 bra WORD;
        add.u64 %rd2, %rd1, 3;
        st.global.u8 [%rd2], %r1;
        ret;
    WORD:
        st.global.u32 [%rd1], %r1;
        ret;"""
    fault = the_fault(_run_text(ptx_builder, body, in_out(np.zeros(8, np.uint8))), "race")
    assert fault.offset == 3


def test_a_write_beyond_the_end_is_found(ptx_builder):
    def shift(a, out):
        i = cuda.threadIdx.x
        out[i + 1] = a[i]

    whole = np.zeros(70, np.int32)
    fault = the_fault(run(ptx_builder, shift, numbers(), output(whole[:64])), "out of bounds")
    assert (fault.thread, fault.count, fault.statement.mnemonic) == (63, 1, "st.global.u32")
    assert whole[64] == 0, "it is not made"


def test_a_read_beyond_a_shared_array_is_found(ptx_builder):
    def neighbour(a, out):
        first = cuda.shared.array(64, types.int32)
        second = cuda.shared.array(64, types.int32)
        i = cuda.threadIdx.x
        first[i] = second[i] = a[i]
        cuda.syncthreads()
        out[i] = first[i + 1] + second[i]

    fault = the_fault(run(ptx_builder, neighbour, numbers(), output(nothing())), "out of bounds")
    assert (fault.thread, fault.offset) == (63, 256)
    assert fault.where.startswith("_cudapy_smem")


def test_a_barrier_that_a_part_of_a_warp_reaches_is_found(ptx_builder):
    def half(a, out):
        i = cuda.threadIdx.x
        if a[i] > 20:
            cuda.syncthreads()
        out[i] = a[i]

    fault = the_fault(run(ptx_builder, half, numbers(), output(nothing())), "divergent barrier")
    assert fault.statement.mnemonic == "bar.sync"


def test_two_warps_at_different_barriers_are_found(ptx_builder):
    def each_its_own(a, out):
        i = cuda.threadIdx.x
        if i < 32:
            cuda.syncthreads()
            out[i] = a[i]
        else:
            cuda.syncthreads()
            out[i] = -a[i]

    fault = the_fault(run(ptx_builder, each_its_own, numbers(), output(nothing())), "divergent barrier")
    assert fault.other.line != fault.statement.line


def test_an_exit_before_a_barrier_is_found(ptx_builder):
    def leave(a, out):
        i = cuda.threadIdx.x
        if i >= 32:
            return
        cuda.syncthreads()
        out[i] = a[i]

    the_fault(run(ptx_builder, leave, numbers(), output(nothing())), "exit before a barrier")


def test_a_misaligned_access_is_found(ptx_builder):
    odd = np.zeros(65 * 4, np.uint8)[1:257].view(np.int32)
    fault = the_fault(run(ptx_builder, _copy, numbers(), output(odd, "odd")), "misaligned")
    assert (fault.where, fault.count) == ("odd", 64)


def test_shared_memory_is_as_badly_aligned_as_it_may_be(ptx_builder):
    body = "mov.u32 %r2, bytes; st.shared.u32 [%r2], %r1; ret;"
    declared = ".shared .align 1 .b8 bytes[8];"
    the_fault(_run_text(ptx_builder, body, in_out(np.zeros(8, np.uint8)), declared, block=1), "misaligned")
    declared = ".shared .align 4 .b8 bytes[8];"
    assert not _run_text(ptx_builder, body, in_out(np.zeros(8, np.uint8)), declared, block=1).faults


def test_a_byte_written_twice_is_found(ptx_builder):
    def twice(a, out):
        i = cuda.threadIdx.x
        out[i] = 0
        for k in range(a[i], a[i] + 2):
            out[i] = k

    fault = the_fault(run(ptx_builder, twice, numbers(), output(nothing(), "out")), "written twice")
    assert fault.where == "out"


def test_a_write_to_read_only_memory_is_found_and_not_made(ptx_builder):
    kept = nothing()
    fault = the_fault(run(ptx_builder, _copy, numbers(), kept), "write to read-only memory")
    assert (fault.where, fault.thread) == ("argument 1", 0)
    np.testing.assert_array_equal(kept, nothing())


def test_shared_memory_that_was_never_written_is_found(ptx_builder):
    def unset(a, out):
        shared = cuda.shared.array(64, types.int32)
        i = cuda.threadIdx.x
        if i > 0:
            shared[i] = a[i]
        out[i] = shared[i]

    out = nothing()
    fault = the_fault(run(ptx_builder, unset, numbers(), output(out)), "read before it is written")
    assert (fault.thread, fault.count, fault.offset) == (0, 1, 0)
    other = nothing()
    run(ptx_builder, unset, numbers(), output(other), order=1)
    assert out[0] != other[0], "it is other garbage in another order"


def test_global_memory_that_was_never_written_is_found(ptx_builder):
    fault = the_fault(
        run(ptx_builder, _copy, scratch(nothing(), "rows"), output(nothing())), "read before it is written"
    )
    assert fault.where == "rows"


def test_local_memory_beyond_an_array_is_found(ptx_builder):
    def local(a, out):
        own = cuda.local.array(8, types.int32)
        i = cuda.threadIdx.x
        own[a[i] % 16] = i
        out[i] = own[a[i] % 4]

    fault = the_fault(run(ptx_builder, local, numbers(), output(nothing())), "out of bounds")
    assert (fault.where, fault.thread, fault.count) == ("local memory", 1, 32)


def test_local_memory_that_was_never_written_is_found(ptx_builder):
    body = ".local .align 4 .b8 own[8]; mov.u64 %rd2, own; ld.local.u32 %r2, [%rd2+4]; ret;"
    report = _run_text(ptx_builder, body, in_out(np.zeros(8, np.uint8)))
    assert the_fault(report, "read before it is written").where == "local memory"


def test_a_division_by_zero_is_found(ptx_builder):
    body = "mov.u32 %r2, 0; div.u32 %r1, %r1, %r2; st.global.u32 [%rd1], %r1; ret;"
    the_fault(_run_text(ptx_builder, body, in_out(np.zeros(8, np.uint8)), block=1), "division by zero")


def test_a_barrier_within_a_warp_orders_its_threads(ptx_builder):
    def swap(a, out):
        shared = cuda.shared.array(32, types.int32)
        i = cuda.threadIdx.x
        shared[i] = a[i]
        cuda.syncwarp()
        out[i] = shared[31 - i]

    out = nothing(32)
    assert not run(ptx_builder, swap, numbers(32), output(out), block=32).faults
    np.testing.assert_array_equal(out, numbers(32)[::-1])
    assert {f.kind for f in run(ptx_builder, _swap_without, numbers(32), output(out), block=32).faults} == {"race"}


def test_an_exchange_with_a_thread_that_is_elsewhere_is_found(ptx_builder):
    def exchange(a, out):
        i = cuda.threadIdx.x
        value = a[i]
        if i < 16:
            value = cuda.shfl_sync(0xFFFFFFFF, value, 31)
        out[i] = value

    kinds = {fault.kind for fault in run(ptx_builder, exchange, numbers(32), output(nothing(32)), block=32).faults}
    assert kinds == {"divergent exchange"}


def test_a_barrier_for_more_threads_than_come_is_a_deadlock(ptx_builder):
    body = "bar.sync 1, 96; st.global.u32 [%rd1], %r1; ret;"
    the_fault(_run_text(ptx_builder, body, in_out(np.zeros(8, np.uint8))), "deadlock")


def test_named_barriers_order_only_the_warps_that_meet(ptx_builder):
    """Warps 0 and 1 meet at barrier 1, and warp 2 does not: what warp 0 wrote races with warp 2's read."""
    body = """
        setp.ne.u32 %p2, %r1, 0;
        @%p2 bra NEXT;
        st.global.u32 [%rd1], %r1;
    NEXT:
        setp.ge.u32 %p2, %r1, 64;
        @%p2 bra LAST;
        bar.sync 1, 64;
    LAST:
        setp.ne.u32 %p2, %r1, READER;
        @%p2 bra DONE;
        ld.global.u32 %r2, [%rd1];
    DONE:
        ret;"""
    memory = in_out(np.zeros(8, np.uint8))
    assert not _run_text(ptx_builder, body.replace("READER", "40"), memory, block=96).faults
    the_fault(_run_text(ptx_builder, body.replace("READER", "70"), memory, block=96), "race")


def test_a_trap_and_a_loop_without_end_stop_the_launch(ptx_builder):
    memory = in_out(np.zeros(8, np.uint8))
    the_fault(_run_text(ptx_builder, "@%p1 trap; ret;", memory), "trap")
    the_fault(_run_text(ptx_builder, "HERE: bra HERE;", memory, most_operations=1000), "endless loop")


def test_what_a_kernel_writes_must_not_be_read_through_the_read_only_cache(ptx_builder):
    body = "st.global.u32 [%rd1], %r1; ld.global.nc.u32 %r2, [%rd1]; ret;"
    report = _run_text(ptx_builder, body, in_out(np.zeros(8, np.uint8)), block=1)
    the_fault(report, "read through the read-only cache of what the kernel writes")


def test_a_fault_names_the_line_of_the_source_if_the_ptx_does(ptx_builder):
    body = ".loc 1 77 0\n st.global.u32 [%rd1+8], %r1; ret;\n"
    memory = in_out(np.zeros(8, np.uint8))
    fault = the_fault(_run_text(ptx_builder, body, memory, '.file 1 "kernel.py"', block=1), "out of bounds")
    assert "(kernel.py:77)" in str(fault)


def _copy(a, out):
    i = cuda.threadIdx.x
    out[i] = a[i]


def _swap_without(a, out):
    shared = cuda.shared.array(32, types.int32)
    i = cuda.threadIdx.x
    shared[i] = a[i]
    out[i] = shared[31 - i]


def _run_text(builder, body: str, memory, declared: str = "", block: int = 2, **options) -> Report:
    """Run PTX: %rd1 is the memory's address, %r1 the thread's number, %p1 holds for thread 0."""
    text = f"""
.version 9.0
.target sm_90
.address_size 64
{declared}
.visible .entry kernel(.param .u64 memory)
{{
    .reg .pred %p<5>;
    .reg .b32 %r<5>;
    .reg .b64 %rd<5>;
    ld.param.u64 %rd1, [memory];
    mov.u32 %r1, %tid.x;
    setp.eq.u32 %p1, %r1, 0;
    {body}
}}
"""
    return Kernel(text, builder).launch(1, block, [pointer(memory.array)], [memory], **options)
