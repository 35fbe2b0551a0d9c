// A block of threads, warp by warp: the order of execution, diverged threads, and barriers.
#include "exchanges.hpp"

struct Machine : Exchanges {
  std::vector<Warp> warps;
  std::vector<std::vector<u8>> registers, own;
  u64 random = 1;
  bool stopped = false;

  // ---- one launch ----

  void run() {
    memory.check = launch.check;
    memory.faults.clear();
    memory.set_regions(launch.regions, launch.num_regions);
    random = launch.order + 1;
    stopped = false;
    prepare_warps();
    for (u64 i = 0; i < launch.num_blocks && !stopped; i++) {
      const u64 at = launch.order % 2 ? launch.num_blocks - 1 - i : i;
      begin_block(launch.blocks[at]);
      run_block();
    }
    memory.free_regions();
    for (size_t i = 0; i < memory.faults.size(); i++) launch.faults[i] = memory.faults[i];
  }

  u32 num_threads() const { return launch.block[0] * launch.block[1] * launch.block[2]; }

  void prepare_warps() {
    const u32 count = (num_threads() + LANES - 1) / LANES;
    memory.shared.assign(setup.shared, setup.shared + setup.num_shared);
    u64 bytes = setup.shared_bytes;
    for (Region& variable : memory.shared)
      if (variable.end == variable.begin) {
        variable.end += launch.dynamic_bytes;
        bytes = std::max(bytes, variable.end);
      }
    memory.shared_window = setup.shared_window;
    memory.shared_shadow.resize(bytes);
    memory.own_variables.assign(setup.own, setup.own + setup.num_own);
    memory.own_bytes = setup.own_bytes;
    registers.resize(count);
    own.resize(count * LANES);
    memory.own.clear();
    for (auto& of_warp : registers) of_warp.assign(setup.registers_bytes + 64, u8(0x5a + launch.order));
    for (auto& of_thread : own) {
      of_thread.resize(setup.own_bytes + 256);
      memory.own.push_back(reinterpret_cast<u8*>((reinterpret_cast<u64>(of_thread.data()) + 255) / 256 * 256));
    }
    memory.own_defined.assign(count * LANES, std::vector<u8>(setup.own_bytes));
    warps.resize(count);
  }

  void begin_block(u64 number) {
    memory.block = number;
    memory.block_number++;
    // What was never written differs from order to order, so that a result which depends on it does too.
    std::memset(setup.shared_window, 0xa5 + 0x31 * launch.order, memory.shared_shadow.size());
    std::memset(static_cast<void*>(memory.shared_shadow.data()), 0, memory.shared_shadow.size() * sizeof(Shadow));
    for (size_t i = 0; i < own.size() && setup.own_bytes > 16; i++) {
      std::memset(memory.own[i], 0x3c + launch.order, setup.own_bytes);
      std::fill(memory.own_defined[i].begin(), memory.own_defined[i].end(), 0);
    }
    memory.clocks.assign(warps.size(), std::vector<u32>(warps.size(), 0));
    for (u32 w = 0; w < warps.size(); w++) {
      memory.clocks[w][w] = 1;
      Warp& warp = warps[w];
      const u32 threads = std::min(LANES, num_threads() - w * LANES);
      warp.registers = reinterpret_cast<u8*>((reinterpret_cast<u64>(registers[w].data()) + 63) / 64 * 64);
      warp.constants = setup.constants;
      warp.number = w;
      warp.living = threads == LANES ? ALL_LANES : (1u << threads) - 1;
      warp.waits = warp.finished = warp.divided_by_zero = false;
      warp.frames.assign(1, Frame{setup.end, {Path{setup.entry, warp.living}}});
      fill_special(warp, number);
    }
  }

  void fill_special(Warp& warp, u64 number) {
    const u32* grid = launch.grid;
    const u32* size = launch.block;
    for (u32 lane = 0; lane < LANES; lane++) {
      const u32 thread = warp.number * LANES + lane;
      u32 next = 0;
      auto put = [&](u32 value) { values<u32>(warp, setup.special[next++])[lane] = value; };
      auto put64 = [&](u64 value) { values<u64>(warp, setup.special[next++])[lane] = value; };
      put(thread % size[0]), put(thread / size[0] % size[1]), put(thread / size[0] / size[1]);
      put(size[0]), put(size[1]), put(size[2]);
      put(u32(number % grid[0])), put(u32(number / grid[0] % grid[1])), put(u32(number / grid[0] / grid[1]));
      put(grid[0]), put(grid[1]), put(grid[2]);
      put(lane), put(warp.number), put(u32(warps.size()));
      put(launch.dynamic_bytes), put(u32(memory.shared_shadow.size()));
      put(1u << lane), put((1u << lane) - 1), put((2u << lane) - 1), put(lane == 31 ? 0 : ~((2u << lane) - 1)), put(~((1u << lane) - 1));
      put(0), put64(0), put64(0), put(0), put(1), put64(0);
      put64(reinterpret_cast<u64>(memory.own[thread]));
    }
  }

  u32 shuffled(u32 below) {
    random = random * 6364136223846793005ull + 1442695040888963407ull;
    return u32((random >> 33) % below);
  }

  // ---- one block ----

  void run_block() {
    std::vector<u32> turns(warps.size());
    while (!stopped) {
      for (u32 i = 0; i < turns.size(); i++) turns[i] = launch.order % 2 ? u32(turns.size()) - 1 - i : i;
      if (launch.order >= 2)
        for (u32 i = u32(turns.size()); i > 1; i--) std::swap(turns[i - 1], turns[shuffled(i)]);
      for (u32 w : turns)
        if (!warps[w].finished && !warps[w].waits && !stopped) run_warp(warps[w]);
      bool all_finished = true;
      for (const Warp& warp : warps) all_finished &= warp.finished;
      if (all_finished || stopped) return;
      if (!release_barriers()) return;
    }
  }

  // Release the warps of each barrier that is complete; false if none is, after the fault was reported.
  bool release_barriers() {
    bool released = false;
    for (u32 id = 0; id < 16; id++) {
      std::vector<Warp*> waiting;
      for (Warp& warp : warps)
        if (warp.waits && barrier_id(warp) == id) waiting.push_back(&warp);
      if (waiting.empty()) continue;
      const Operation& first = setup.operations[waiting[0]->waits_at];
      const u32 needed = first.slots[1] == NO_SLOT ? num_threads() : values<u32>(*waiting[0], first.slots[1])[0];
      u32 arrived = 0;
      for (Warp* warp : waiting) {
        arrived += std::min(LANES, num_threads() - warp->number * LANES);
        if (warp->waits_at != waiting[0]->waits_at) return fail(faults::divergent_barrier, *warp, *waiting[0]);
      }
      if (arrived < needed) continue;
      complete(waiting, first);
      released = true;
    }
    if (released) return true;
    for (Warp& warp : warps)
      for (Warp& other : warps)
        if (warp.waits && other.finished) return fail(faults::exit_before_a_barrier, warp, other);
    for (Warp& warp : warps)
      if (warp.waits) return fail(faults::deadlock, warp, warp);
    return false;
  }

  u32 barrier_id(Warp& warp) { return values<u32>(warp, setup.operations[warp.waits_at].slots[0])[0]; }

  bool fail(faults::Name kind, const Warp& warp, const Warp& other) {
    const u32 elsewhere = other.finished ? NOBODY : setup.operations[other.waits_at].statement;
    memory.report(kind, site(warp, setup.operations[warp.waits_at], 0), NOWHERE, 0, other.number * LANES, elsewhere);
    stopped = true;
    return false;
  }

  void complete(const std::vector<Warp*>& waiting, const Operation& op) {
    std::vector<u32> merged(warps.size(), 0);
    u32 holds = 0, threads = 0;
    for (Warp* warp : waiting) {
      for (u32 v = 0; v < warps.size(); v++) merged[v] = std::max(merged[v], memory.clocks[warp->number][v]);
      threads += __builtin_popcount(warp->living);
      if (op.action) holds += __builtin_popcount(predicate(*warp, op.slots[3]) & warp->living);
    }
    for (Warp* warp : waiting) {
      memory.clocks[warp->number] = merged;
      memory.clocks[warp->number][warp->number]++;
      warp->waits = false;
      if (op.action == reductions::popc) each_lane(warp->living, [&](u32 lane) { values<u32>(*warp, op.slots[2])[lane] = holds; });
      if (op.action == reductions::and_all) predicate(*warp, op.slots[2]) = holds == threads ? ALL_LANES : 0;
      if (op.action == reductions::or_any) predicate(*warp, op.slots[2]) = holds ? ALL_LANES : 0;
    }
    (*launch.barriers)++;
  }

  // ---- one warp ----

  // Execute until the warp waits at a barrier or all of its threads have ended.
  void run_warp(Warp& warp) {
    for (u64 executed = 0; !stopped; executed++) {
      Frame& frame = warp.frames.back();
      if (frame.paths.empty()) {
        warp.frames.pop_back();
        if (warp.frames.empty()) {
          warp.finished = true;
          return;
        }
        continue;
      }
      Path& path = frame.paths.back();
      path.active &= warp.living;
      if (path.at == frame.end || !path.active) {
        if (warp.frames.size() == 1) warp.living &= ~path.active;
        frame.paths.pop_back();
        continue;
      }
      if (setup.operations[path.at].leads && frame.paths.size() > 1 && waits_for_others(frame)) continue;
      const Operation& op = setup.operations[path.at];
      u32 active = path.active;
      if (op.guard != NO_SLOT) active &= op.guard_negated ? ~predicate(warp, op.guard) : predicate(warp, op.guard);
      if (op.counted) {
        launch.warp_counts[op.statement]++;
        launch.thread_counts[op.statement] += __builtin_popcount(active);
      }
      if (executed == launch.most_operations) stop(faults::endless_loop, warp, op);
      if (op.kind == kinds::compute) {
        path.at++;
        if (active) op.compute(warp, op, active);
        if (warp.divided_by_zero) {
          memory.report(faults::division_by_zero, site(warp, op, 0), NOWHERE, 0);
          warp.divided_by_zero = false;
        }
      } else if (!execute(warp, op, path, active)) {
        return;
      }
    }
  }

  // Put the path that is to be executed among the others; false if it is still the next one.
  bool waits_for_others(Frame& frame) {
    const Path& before = frame.paths[frame.paths.size() - 2];
    const Path path = frame.paths.back();
    if (rank(path.at) < rank(before.at)) return false;
    frame.paths.pop_back();
    add(frame, path);
    return true;
  }

  u32 rank(u32 at) const { return setup.operations[at].rank; }

  void add(Frame& frame, const Path& path) {
    size_t i = frame.paths.size();
    while (i > 0 && rank(frame.paths[i - 1].at) < rank(path.at)) i--;
    if (i > 0 && frame.paths[i - 1].at == path.at) frame.paths[i - 1].active |= path.active;
    else frame.paths.insert(frame.paths.begin() + i, path);
  }

  void stop(faults::Name kind, const Warp& warp, const Operation& op, u32 offset = 0) {
    memory.report(kind, site(warp, op, u32(__builtin_ctz(warp.living | 1u << 31))), NOWHERE, offset);
    stopped = true;
  }

  // Execute an operation that table.py does not know; false if the warp now waits.
  bool execute(Warp& warp, const Operation& op, Path& path, u32 active) {
    switch (op.kind) {
      case kinds::jump:
      case kinds::branch:
      case kinds::leave: branch(warp.frames.back(), path, active, op.target); return true;
      case kinds::jump_by_table: jump_by_table(warp, op, path.active, active); return true;
      case kinds::call: {
        path.at++;
        if (active) warp.frames.push_back({op.end, {Path{op.target, active}}});
        return true;
      }
      case kinds::exit_thread: path.at++, warp.living &= ~active; return true;
      case kinds::trap:
        path.at++;
        if (active) stop(faults::trap, warp, op);
        return true;
      case kinds::barrier: {
        path.at++;
        if (active != warp.living || num_full(warp) != __builtin_popcount(active)) {
          stop(faults::divergent_barrier, warp, op, active);
          return false;
        }
        warp.waits = true;
        warp.waits_at = u32(&op - setup.operations);
        return false;
      }
    }
    path.at++;
    if (!active) return true;
    switch (op.kind) {
      case kinds::load: load(warp, op, active); break;
      case kinds::store: store(warp, op, active); break;
      case kinds::atomic: atomic(warp, op, active); break;
      case kinds::copy_own: copy_own(warp, op, active); break;
      case kinds::warp_barrier:
        converged(warp, op, active, 0);
        memory.clocks[warp.number][warp.number]++;
        break;
      case kinds::exchange: exchange(warp, op, active); break;
      case kinds::vote: vote(warp, op, active); break;
      case kinds::carry: carry(warp, op, active); break;
    }
    return true;
  }

  int num_full(const Warp& warp) const { return int(std::min(LANES, num_threads() - warp.number * LANES)); }

  void branch(Frame& frame, Path& path, u32 taken, u32 target) {
    const Path stays{path.at + 1, path.active & ~taken};
    if (!stays.active) path.at = target;
    else if (!taken) path.at++;
    else {
      frame.paths.pop_back();
      add(frame, stays);
      add(frame, {target, taken});
    }
  }

  void jump_by_table(Warp& warp, const Operation& op, u32 all, u32 active) {
    Frame& frame = warp.frames.back();
    const u32 next = frame.paths.back().at + 1;
    frame.paths.pop_back();
    if (all & ~active) add(frame, {next, all & ~active});
    each_lane(active, [&](u32 lane) {
      const u32 chosen = values<u32>(warp, op.slots[0])[lane];
      if (chosen < op.table_size) add(frame, {setup.targets[op.table_begin + chosen], 1u << lane});
      else stop(faults::out_of_bounds, warp, op, chosen);
    });
  }
};

extern "C" {
Machine* machine_new(const Setup* setup) {
  Machine* machine = new Machine;
  machine->setup = *setup;
  return machine;
}

void machine_free(Machine* machine) { delete machine; }

u64 machine_run(Machine* machine, const Launch* launch) {
  machine->launch = *launch;
  machine->run();
  return machine->memory.faults.size();
}
}
