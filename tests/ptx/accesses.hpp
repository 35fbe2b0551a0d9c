// Loads, stores and atomic operations of a warp.
#pragma once
#include "memory.hpp"

// `running.Setup` and `running.Launch` have the same fields.
struct Setup {
  const Operation* operations;
  const u32* targets;
  const u8* constants;
  u8* shared_window;
  const u32* special;        // slots, in the order of layout.SPECIAL
  const Region* shared;      // the variables in shared memory; the dynamic one ends at its begin
  const Region* own;         // the variables of a thread's own memory
  u64 num_shared, num_own, shared_bytes, own_bytes, registers_bytes, num_statements;
  u32 entry, end;
};

struct Launch {
  u32 grid[3], block[3];
  u32 dynamic_bytes, order, check;
  u64 most_operations;  // of a warp between two barriers
  const u8* parameters;
  u64 parameters_bytes;
  const Region* regions;
  u64 num_regions;
  const u64* blocks;  // the numbers of the blocks to run
  u64 num_blocks;
  u64* warp_counts;   // how often warps executed each statement
  u64* thread_counts; // and their threads
  u64* barriers;
  Fault* faults;      // MOST_FAULTS
};

struct Accesses {
  Setup setup;
  Launch launch;
  Memory memory;

  Site site(const Warp& warp, const Operation& op, u32 lane) const {
    return {op.statement, warp.number, warp.number * LANES + lane};
  }

  u64 address(Warp& warp, const Operation& op, u32 lane) const {
    const u32 slot = op.slots[0];
    return (op.address_bytes == 4 ? values<u32>(warp, slot)[lane] : values<u64>(warp, slot)[lane]) + op.offset;
  }

  u8* place(Warp& warp, const Operation& op, u32 lane, u32 bytes, Access access) {
    const u64 at = address(warp, op, lane);
    if (op.space == spaces::own) return reinterpret_cast<u8*>(at);
    if (op.space == spaces::param) {
      if (at + bytes <= launch.parameters_bytes) return const_cast<u8*>(launch.parameters) + at;
      memory.report(faults::out_of_bounds, site(warp, op, lane), NOWHERE, at);
      return nullptr;
    }
    return memory.checked(at, bytes, op.space, access, site(warp, op, lane), warp.number * LANES + lane);
  }

  void load(Warp& warp, const Operation& op, u32 active) {
    each_lane(active, [&](u32 lane) {
      const u8* from = place(warp, op, lane, op.bytes * op.elements, READ);
      for (u32 i = 0; i < op.elements; i++) {
        u8* to = warp.registers + op.slots[1 + i] + lane * op.register_bytes;
        u64 value = 0;
        if (from) std::memcpy(&value, from + i * op.bytes, op.bytes);
        if (op.is_signed && op.bytes < 8 && value >> (8 * op.bytes - 1)) value |= ~u64(0) << (8 * op.bytes);
        std::memcpy(to, &value, op.register_bytes);
      }
    });
  }

  void store(Warp& warp, const Operation& op, u32 active) {
    each_lane(active, [&](u32 lane) {
      u8* to = place(warp, op, lane, op.bytes * op.elements, WRITE);
      for (u32 i = 0; i < op.elements && to; i++)
        std::memcpy(to + i * op.bytes, values<u8>(warp, op.slots[1 + i]) + lane * op.register_bytes, op.bytes);
    });
  }

  template <class T> static T changed(u8 action, T old, T a, T b) {
    switch (action) {
      case atomics::min: return std::min(old, a);
      case atomics::max: return std::max(old, a);
      case atomics::exch: return a;
      case atomics::cas: return old == a ? b : old;
    }
    if constexpr (is_float<T>) return old + a;
    else switch (action) {
      case atomics::add: return T(wrap(old) + wrap(a));
      case atomics::and_: return old & a;
      case atomics::or_: return old | a;
      case atomics::xor_: return old ^ a;
      case atomics::inc: return old >= a ? 0 : old + 1;
      default: return old == 0 || old > a ? a : old - 1;  // dec
    }
  }

  template <class T> void atomic_as(Warp& warp, const Operation& op, u32 active) {
    each_lane(active, [&](u32 lane) {
      u8* at = place(warp, op, lane, sizeof(T), ATOMIC);
      if (!at) return;
      T old;
      std::memcpy(&old, at, sizeof old);
      const T a = values<T>(warp, op.slots[2])[lane], b = op.action == atomics::cas ? values<T>(warp, op.slots[3])[lane] : a;
      const T made = changed(op.action, old, a, b);
      std::memcpy(at, &made, sizeof made);
      values<T>(warp, op.slots[1])[lane] = old;
    });
  }

  void atomic(Warp& warp, const Operation& op, u32 active) {
    const bool is_wide = op.bytes == 8;
    if (op.type == types::float_number) is_wide ? atomic_as<f64>(warp, op, active) : atomic_as<f32>(warp, op, active);
    else if (op.type == types::signed_number) is_wide ? atomic_as<s64>(warp, op, active) : atomic_as<s32>(warp, op, active);
    else is_wide ? atomic_as<u64>(warp, op, active) : atomic_as<u32>(warp, op, active);
  }

  void copy_own(Warp& warp, const Operation& op, u32 active) {  // a parameter, from the caller to the function
    each_lane(active, [&](u32 lane) {
      u8* base = memory.own[warp.number * LANES + lane];
      std::memmove(base + op.slots[1], base + op.offset, op.slots[0]);
    });
  }
};
