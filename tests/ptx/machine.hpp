// What a warp is: its registers, and the operations that the translator made of the PTX.
#pragma once
#include <vector>
#include "arithmetic.hpp"

constexpr u32 LANES = 32, ALL_LANES = ~0u;
constexpr u32 CONSTANT = 1u << 31;  // of a slot: it lies in the constants, which all warps share
constexpr u32 NO_SLOT = ~0u;
constexpr int MOST_SLOTS = 8;

struct Warp;
struct Operation;
using Handler = void (*)(Warp&, const Operation&, u32 active);

// `translating.Operation` has the same fields.
struct Operation {
  Handler compute;           // of instructions in table.py; the others are `kind`s of machine.cpp
  s64 offset;                // of an address
  u32 slots[MOST_SLOTS];     // the result first
  u32 guard;                 // a predicate, or NO_SLOT
  u32 target, end;           // where a branch or a call leads; where the function that is called ends
  u32 rank;                  // of its block: see control_flow.py
  u32 statement;             // the instruction of the PTX
  u16 kind;
  u8 guard_negated, counted; // counted: the first operation of its instruction
  u8 leads;                  // the first operation of its block
  u8 space, bytes, elements, register_bytes, address_bytes, is_signed;
  u8 action, type;           // of an atomic operation, an exchange, a vote, a barrier
  u32 table_size;            // of a jump table, whose targets follow in `targets`
  u32 table_begin;
};

// Threads of a warp that execute the same instruction.
struct Path {
  u32 at, active;
};

// A function that is being executed. The last path is the next to execute, the others are in their blocks' order.
struct Frame {
  u32 end;
  std::vector<Path> paths;
};

struct Warp {
  u8* registers;  // a register is 32 values side by side; a predicate is 32 bits
  const u8* constants;
  std::vector<Frame> frames;
  u32 number, living;      // the lanes that have a thread which has not exited
  u32 waits_at;            // the barrier's operation, if it waits
  bool waits, finished, divided_by_zero;
  u8 carry[LANES];
};

template <class T> inline storage<T>* values(Warp& warp, u32 slot) {
  if (slot & CONSTANT) return reinterpret_cast<storage<T>*>(const_cast<u8*>(warp.constants) + (slot & ~CONSTANT));
  return reinterpret_cast<storage<T>*>(warp.registers + slot);
}

inline u32& predicate(Warp& warp, u32 slot) { return *values<u32>(warp, slot); }

template <class F> inline void each_lane(u32 active, F f) {
  if (active == ALL_LANES) {
#pragma GCC ivdep
    for (u32 lane = 0; lane < LANES; lane++) f(lane);
  } else {
    for (u32 rest = active; rest; rest &= rest - 1) f(u32(__builtin_ctz(rest)));
  }
}
