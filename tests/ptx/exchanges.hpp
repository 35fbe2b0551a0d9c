// What the threads of a warp do together: exchanges and votes; and sums with a carry.
#pragma once
#include "accesses.hpp"

struct Exchanges : Accesses {
  void converged(Warp& warp, const Operation& op, u32 active, u32 mask_at) {
    const u32 mask = values<u32>(warp, op.slots[mask_at])[__builtin_ctz(active)];
    if ((mask & warp.living) != active) memory.report(faults::divergent_exchange, site(warp, op, u32(__builtin_ctz(active))), NOWHERE, mask);
  }

  void exchange(Warp& warp, const Operation& op, u32 active) {
    converged(warp, op, active, 5);
    u32 before[LANES];
    std::memcpy(before, values<u32>(warp, op.slots[2]), sizeof before);
    u32 valid = 0;
    each_lane(active, [&](u32 lane) {
      const s32 by = s32(values<u32>(warp, op.slots[3])[lane] & 31), c = s32(values<u32>(warp, op.slots[4])[lane]);
      const s32 clamp = c & 31, segment = c >> 8 & 31, own_lane = s32(lane);
      const s32 most = (own_lane & segment) | (clamp & ~segment), least = own_lane & segment;
      s32 from = op.action == exchanges::up ? own_lane - by : op.action == exchanges::down ? own_lane + by
               : op.action == exchanges::bfly ? own_lane ^ by : least | (by & ~segment);
      const bool inside = op.action == exchanges::up ? from >= most : from <= most;
      if (!inside) from = own_lane;
      if (!(active >> from & 1)) memory.report(faults::divergent_exchange, site(warp, op, lane), NOWHERE, u64(from));
      values<u32>(warp, op.slots[0])[lane] = before[from];
      valid |= u32(inside) << lane;
    });
    if (op.slots[1] != NO_SLOT) predicate(warp, op.slots[1]) = (predicate(warp, op.slots[1]) & ~active) | valid;
  }

  void vote(Warp& warp, const Operation& op, u32 active) {
    auto give = [&](u32 value) { each_lane(active, [&](u32 lane) { values<u32>(warp, op.slots[0])[lane] = value; }); };
    auto tell = [&](u32 slot, bool value) { predicate(warp, slot) = (predicate(warp, slot) & ~active) | (value ? active : 0); };
    if (op.action == votes::active_mask) return give(active);
    converged(warp, op, active, 2);
    if (op.action >= votes::sum) return give(reduced(warp, op, active));
    if (op.action == votes::match_any || op.action == votes::match_all) return match(warp, op, active);
    const u32 holds = predicate(warp, op.slots[1]) & active;
    if (op.action == votes::ballot) give(holds);
    else if (op.action == votes::all) tell(op.slots[0], holds == active);
    else if (op.action == votes::any) tell(op.slots[0], holds != 0);
    else tell(op.slots[0], holds == 0 || holds == active);
  }

  void match(Warp& warp, const Operation& op, u32 active) {
    auto value = [&](u32 lane) { return op.bytes == 8 ? values<u64>(warp, op.slots[1])[lane] : values<u32>(warp, op.slots[1])[lane]; };
    u32 result[LANES];
    bool all = true;
    each_lane(active, [&](u32 lane) {
      result[lane] = 0;
      each_lane(active, [&](u32 other) { result[lane] |= u32(value(lane) == value(other)) << other; });
      all &= result[lane] == active;
    });
    each_lane(active, [&](u32 lane) {
      values<u32>(warp, op.slots[0])[lane] = op.action == votes::match_any ? result[lane] : all ? active : 0;
    });
    if (op.slots[3] != NO_SLOT) predicate(warp, op.slots[3]) = (predicate(warp, op.slots[3]) & ~active) | (all ? active : 0);
  }

  u32 reduced(Warp& warp, const Operation& op, u32 active) {
    const u32* given = values<u32>(warp, op.slots[1]);
    u32 result = given[__builtin_ctz(active)];
    each_lane(active & (active - 1), [&](u32 lane) {
      const u32 value = given[lane];
      const bool less = op.is_signed ? s32(value) < s32(result) : value < result;
      switch (op.action) {
        case votes::sum: result += value; break;
        case votes::least: result = less ? value : result; break;
        case votes::most: result = less ? result : value; break;
        case votes::all_bits: result &= value; break;
        case votes::any_bits: result |= value; break;
        default: result ^= value;
      }
    });
    return result;
  }

  // Sums and products in parts: `type` is 1 if the carry comes in, plus 2 if it goes out.
  void carry(Warp& warp, const Operation& op, u32 active) {
    using u128 = unsigned __int128;
    const int width = 8 * op.bytes;
    auto number = [&](u32 slot, u32 lane) -> u128 {
      return op.bytes == 8 ? values<u64>(warp, slot)[lane] : values<u32>(warp, slot)[lane];
    };
    auto extended = [&](u128 v) -> u128 { return op.is_signed && v >> (width - 1) & 1 ? v | ~u128(0) << width : v; };
    each_lane(active, [&](u32 lane) {
      const u128 a = number(op.slots[1], lane), b = number(op.slots[2], lane), mask = (u128(1) << width) - 1;
      const u32 comes_in = op.type & 1 ? warp.carry[lane] : 0;
      u128 sum;
      if (op.action == carries::add) sum = a + b + comes_in;
      else if (op.action == carries::sub) sum = a - b - comes_in;
      else {
        const u128 product = extended(a) * extended(b);
        const u128 part = op.action == carries::product_low ? product : product >> width;
        sum = (part & mask) + number(op.slots[3], lane) + comes_in;
      }
      if (op.bytes == 8) values<u64>(warp, op.slots[0])[lane] = u64(sum);
      else values<u32>(warp, op.slots[0])[lane] = u32(sum);
      if (op.type & 2) warp.carry[lane] = u8(sum >> width & 1);
    });
  }
};
