// Memory and what is known of each of its bytes: who wrote and read it last, and when. Every access is checked here.
#pragma once
#include <cstdlib>
#include <sys/mman.h>
#include "machine.hpp"
#include "names.hpp"

// An array of the launch. `running.Region` has the same fields.
struct Region {
  u64 begin, end;
  u8 writable, once, initialised;  // once: each byte is written at most once
};

// `running.Fault` has the same fields.
struct Fault {
  u32 kind, statement, other_statement, thread, other_thread, region;
  u64 block, offset, count;
};
constexpr u32 IN_SHARED = ~0u, IN_OWN = ~1u, NOWHERE = ~2u, NOBODY = ~0u;
constexpr size_t MOST_FAULTS = 64;

// The last accesses to a byte. A clock counts the barriers that the accessing thread's warp has passed; 0 is never.
struct Shadow {
  u32 written_at, read_at, also_read_at;
  u16 writer, reader, also_reader;  // two readers are enough: a third thread that writes differs from one of them
  u8 defined, written_in_launch, atomically, by_other_blocks;
  u32 block, write_statement, read_statement;
};
enum Access : u8 { READ = 1, WRITE = 2, ATOMIC = 3 };

struct Site {
  u32 statement, warp, thread;
};

struct Memory {
  std::vector<Region> regions;
  std::vector<Shadow*> shadows;  // of the regions; null of those that nobody may write
  std::vector<Region> shared;    // offsets in the window
  u8* shared_window = nullptr;
  std::vector<Shadow> shared_shadow;
  std::vector<u8*> own;  // each thread's own memory
  std::vector<std::vector<u8>> own_defined;
  u64 own_bytes = 0;
  std::vector<Region> own_variables;
  std::vector<std::vector<u32>> clocks;  // clocks[w][v]: the last clock of warp v that warp w is ordered after; of itself, now
  std::vector<Fault> faults;
  u32 block_number = 0;  // counts the blocks that were run, from 1
  u64 block = 0;
  bool check = true;
  size_t last_region = 0;

  void report(faults::Name kind, const Site& site, u32 region, u64 offset, u32 other = NOBODY, u32 other_statement = NOBODY) {
    for (Fault& fault : faults)
      if (fault.kind == kind && fault.statement == site.statement) {
        fault.count++;
        return;
      }
    if (faults.size() < MOST_FAULTS)
      faults.push_back({kind, site.statement, other_statement, site.thread, other, region, block, offset, 1});
  }

  static Shadow* reserve(u64 bytes) {  // pages that are never touched cost nothing
    void* made = mmap(nullptr, bytes * sizeof(Shadow), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (made == MAP_FAILED) std::abort();
    return static_cast<Shadow*>(made);
  }

  void set_regions(const Region* given, u64 count) {
    regions.assign(given, given + count);
    for (const Region& region : regions) shadows.push_back(region.writable && check ? reserve(region.end - region.begin) : nullptr);
  }

  void free_regions() {
    for (size_t i = 0; i < regions.size(); i++)
      if (shadows[i]) munmap(shadows[i], (regions[i].end - regions[i].begin) * sizeof(Shadow));
    regions.clear();
    shadows.clear();
  }

  bool ordered(u32 clock, u32 thread, const Site& site) const {  // whether an access came before this one for sure
    const u32 warp = thread / LANES;
    if (clock == 0 || thread == site.thread) return true;
    return warp == site.warp ? clock < clocks[warp][warp] : clock <= clocks[site.warp][warp];
  }

  void touch(Shadow& byte, Access access, const Site& site, u32 region, u64 offset, bool once) {
    if (byte.block != block_number) {
      byte.by_other_blocks |= (byte.written_at ? (byte.atomically ? 4 : 2) : 0) | (byte.read_at ? 1 : 0);
      byte.written_at = byte.read_at = byte.also_read_at = 0;
      byte.block = block_number;
    }
    const u8 conflicts = access == READ ? 6 : access == ATOMIC ? 3 : 7;
    if (byte.by_other_blocks & conflicts) report(faults::race, site, region, offset, NOBODY, byte.write_statement);
    if (!ordered(byte.written_at, byte.writer, site) && !(access == ATOMIC && byte.atomically))
      report(faults::race, site, region, offset, byte.writer, byte.write_statement);
    const u32 now = clocks[site.warp][site.warp];
    if (access == READ) {
      if (byte.reader == site.thread || ordered(byte.read_at, byte.reader, site)) {
        byte.reader = u16(site.thread);
        byte.read_at = now;
      } else {
        byte.also_reader = u16(site.thread);
        byte.also_read_at = now;
      }
      byte.read_statement = site.statement;
      return;
    }
    if (!ordered(byte.read_at, byte.reader, site)) report(faults::race, site, region, offset, byte.reader, byte.read_statement);
    else if (!ordered(byte.also_read_at, byte.also_reader, site))
      report(faults::race, site, region, offset, byte.also_reader, byte.read_statement);
    if (once && byte.written_in_launch) report(faults::written_twice, site, region, offset, byte.writer, byte.write_statement);
    byte.writer = u16(site.thread);
    byte.written_at = now;
    byte.write_statement = site.statement;
    byte.defined = byte.written_in_launch = 1;
    byte.atomically = access == ATOMIC;
  }

  // Where an access of `bytes` at `address` goes; null if it may not be made. `space` is one of spaces::Space.
  u8* checked(u64 address, u32 bytes, u8 space, Access access, const Site& site, u32 lane_thread) {
    const u64 window = reinterpret_cast<u64>(shared_window), own_begin = reinterpret_cast<u64>(own[lane_thread]);
    if (space == spaces::generic && address - window < shared_shadow.size()) {
      address -= window;
      space = spaces::shared;
    }
    if (space == spaces::shared) return in_shared(address, bytes, access, site);
    if (space == spaces::local || (space == spaces::generic && address - own_begin < own_bytes))
      return in_own(address - own_begin, bytes, access, site);
    return in_region(address, bytes, space, access, site);
  }

  u8* in_shared(u64 offset, u32 bytes, Access access, const Site& site) {
    bool inside = false;
    for (const Region& variable : shared) inside |= offset >= variable.begin && offset + bytes <= variable.end;
    if (!inside) {
      report(faults::out_of_bounds, site, IN_SHARED, offset);
      return nullptr;
    }
    if (offset % bytes) report(faults::misaligned, site, IN_SHARED, offset);
    if (check) touch_all(&shared_shadow[offset], bytes, access, site, IN_SHARED, offset, false, false);
    return shared_window + offset;
  }

  u8* in_own(u64 offset, u32 bytes, Access access, const Site& site) {
    bool inside = false;
    for (const Region& variable : own_variables) inside |= offset >= variable.begin && offset + bytes <= variable.end;
    if (!inside) {
      report(faults::out_of_bounds, site, IN_OWN, offset);
      return nullptr;
    }
    if (offset % bytes) report(faults::misaligned, site, IN_OWN, offset);
    std::vector<u8>& defined = own_defined[site.thread];
    bool any = false;
    for (u32 i = 0; i < bytes; i++) {
      any |= defined[offset + i];
      if (access != READ) defined[offset + i] = 1;
    }
    if (!any && access != WRITE) report(faults::read_before_it_is_written, site, IN_OWN, offset);
    return own[site.thread] + offset;
  }

  u8* in_region(u64 address, u32 bytes, u8 space, Access access, const Site& site) {
    for (size_t tried = 0; tried < regions.size(); tried++) {
      const size_t i = (last_region + tried) % regions.size();
      const Region& region = regions[i];
      if (address < region.begin || address + bytes > region.end) continue;
      last_region = i;
      const u64 offset = address - region.begin;
      if (address % bytes) report(faults::misaligned, site, u32(i), offset);
      if (access != READ && !region.writable) {
        report(faults::write_to_read_only_memory, site, u32(i), offset);
        return nullptr;
      }
      if (shadows[i]) {
        if (space == spaces::read_only && written_in_launch(shadows[i] + offset, bytes))
          report(faults::read_through_the_read_only_cache_of_what_the_kernel_writes, site, u32(i), offset);
        touch_all(shadows[i] + offset, bytes, access, site, u32(i), offset, region.once, region.initialised);
      }
      return reinterpret_cast<u8*>(address);
    }
    report(faults::out_of_bounds, site, NOWHERE, address);
    return nullptr;
  }

  static bool written_in_launch(const Shadow* bytes_, u32 count) {
    for (u32 i = 0; i < count; i++)
      if (bytes_[i].written_in_launch) return true;
    return false;
  }

  // A load of which some bytes were never written is no fault: words that reach over an array's end are loaded so.
  void touch_all(Shadow* first, u32 bytes, Access access, const Site& site, u32 region, u64 offset, bool once, bool initialised) {
    bool any = initialised;
    for (u32 i = 0; i < bytes; i++) any |= first[i].defined;
    if (!any && access != WRITE) report(faults::read_before_it_is_written, site, region, offset);
    for (u32 i = 0; i < bytes; i++) touch(first[i], access, site, region, offset + i, once);
  }
};
