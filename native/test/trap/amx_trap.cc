// The tile instructions of the amx build, byte for byte as the compiler wrote them, on a processor that refuses them: SIGILL
// stops at each, the handler decodes it, does what it says to eight tiles of the thread, and goes on behind it. So registers,
// strides, configurations and the order of instructions are tested as the hardware will see them; its speed is not.
//
// Source: Intel SDM volume 1, chapter 18 (rules, exceptions), volume 2 (encodings, operations). With TANDEM_AMX_TRAP_LOG=FILE
// the place of each instruction is written down when it is first met (scripts/amx-trap.mjs asks which were not).
#include "test/trap/amx_trap.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <immintrin.h>
#include <signal.h>
#include <ucontext.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

extern "C" int __real_sigaction(int signal, const struct sigaction* action, struct sigaction* before);

namespace tandem {

namespace {

struct Tiles {
  bool configured = false;
  uint8_t config[64] = {};
  alignas(64) uint8_t data[8][16][64] = {};

  int rows(int tile) const { return config[48 + tile]; }
  int row_bytes(int tile) const { return config[16 + 2 * tile] | config[17 + 2 * tile] << 8; }
};
thread_local Tiles tiles;

[[noreturn]] void refuse(const char* why) {
  char line[200];
  const int size = snprintf(line, sizeof line, "[native] an AMX unit would refuse this instruction: %s\n", why);
  (void)!write(2, line, static_cast<size_t>(size));
  abort();
}

void expect(bool rule, const char* why) {
  if (!rule) refuse(why);
}

// --- decoding ------------------------------------------------------------------------------------------------------------------
// VEX with three bytes of prefix, map 0F38, 128 bits, W0.
struct Instruction {
  int pp = 0, opcode = 0, vvvv = 0, mod = 0, reg = 0, rm = 0;
  int64_t size = 0;
  uint8_t* base = nullptr;  // of a memory operand
  int64_t stride = 0;       // its scaled index register
  bool has_sib = false;
};

int64_t register_value(const ucontext_t& context, int index) {
  constexpr int kPlaces[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                               REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
  return context.uc_mcontext.gregs[kPlaces[index]];
}

bool decode(const ucontext_t& context, Instruction& out) {
  const uint8_t* const start = reinterpret_cast<const uint8_t*>(context.uc_mcontext.gregs[REG_RIP]);
  const uint8_t* at = start;
  if (at[0] != 0xc4 || (at[1] & 0x1f) != 2 || (at[2] & 0x84) != 0) return false;
  const bool r = !(at[1] & 0x80), x = !(at[1] & 0x40), b = !(at[1] & 0x20);
  out.pp = at[2] & 3;
  out.vvvv = ~(at[2] >> 3) & 15;
  out.opcode = at[3];
  if (out.opcode != 0x49 && out.opcode != 0x4b && out.opcode != 0x5c && out.opcode != 0x5e) return false;
  const uint8_t modrm = at[4];
  at += 5;
  out.mod = modrm >> 6;
  out.reg = (modrm >> 3 & 7) + 8 * r;
  out.rm = modrm & 7;
  if (out.mod == 3) {
    out.rm += 8 * b;
  } else {
    int64_t address = 0;
    int base = out.rm;
    out.has_sib = out.rm == 4;
    if (out.has_sib) {
      const uint8_t sib = *at++;
      base = sib & 7;
      const int index = (sib >> 3 & 7) + 8 * x;
      if (index != 4) out.stride = register_value(context, index) * (int64_t{1} << (sib >> 6));
    }
    int displacement = out.mod == 1 ? 1 : out.mod == 2 ? 4 : 0;
    const bool no_base = base == 5 && out.mod == 0;  // absolute, or relative to the next instruction
    if (no_base) displacement = 4;
    else address = register_value(context, base + 8 * b);
    int32_t wide = 0;
    if (displacement == 4) std::memcpy(&wide, at, 4);
    address += displacement == 1 ? static_cast<int8_t>(*at) : wide;
    at += displacement;
    if (no_base && !out.has_sib) address += reinterpret_cast<int64_t>(at);
    out.base = reinterpret_cast<uint8_t*>(address);
  }
  out.size = at - start;
  return true;
}

// --- operations ----------------------------------------------------------------------------------------------------------------
void load_config(const uint8_t* from) {
  Tiles next;
  std::memcpy(next.config, from, 64);
  if (from[0] == 0) {
    tiles = Tiles{};
    return;
  }
  expect(from[0] == 1, "palette");
  expect(from[1] == 0, "a first row: tiles would start within a load that was interrupted");
  for (int i = 2; i < 16; i++) expect(from[i] == 0, "reserved bytes of a configuration");
  for (int t = 0; t < 16; t++) {
    expect(next.rows(t) <= (t < 8 ? 16 : 0) && next.row_bytes(t) <= (t < 8 ? 64 : 0), "rows or bytes of a tile");
    expect((next.rows(t) == 0) == (next.row_bytes(t) == 0), "rows without bytes");
  }
  next.configured = true;
  tiles = next;
}

void expect_tile(int tile) {
  expect(tiles.configured, "tiles are not configured in this thread");
  expect(tile < 8, "a tile is 0 … 7");
  expect(tiles.rows(tile) > 0, "a tile without a shape");
}

void clear(int tile) { std::memset(tiles.data[tile], 0, sizeof tiles.data[tile]); }

void load(int tile, const Instruction& from) {
  expect_tile(tile);
  expect(from.has_sib, "the operand in memory has no index register");
  clear(tile);
  for (int r = 0; r < tiles.rows(tile); r++) std::memcpy(tiles.data[tile][r], from.base + r * from.stride, static_cast<size_t>(tiles.row_bytes(tile)));
}

void store(int tile, const Instruction& to) {
  expect_tile(tile);
  expect(to.has_sib, "the operand in memory has no index register");
  for (int r = 0; r < tiles.rows(tile); r++) std::memcpy(to.base + r * to.stride, tiles.data[tile][r], static_cast<size_t>(tiles.row_bytes(tile)));
}

void expect_product(int c, int a, int b) {
  for (int tile : {c, a, b}) expect_tile(tile);
  expect(c != a && c != b && a != b, "operands are three different tiles");
  expect(tiles.rows(c) == tiles.rows(a) && tiles.row_bytes(c) == tiles.row_bytes(b) && tiles.row_bytes(a) == 4 * tiles.rows(b) &&
             tiles.row_bytes(c) % 4 == 0,
         "shapes that do not fit one another");
}

// TDPBF16PS. Subnormals count as zero and become zero: the handler runs with DAZ and FTZ.
__attribute__((target("avx2,fma"))) void dot_bf16(int c, int a, int b) {
  expect_product(c, a, b);
  for (int m = 0; m < tiles.rows(c); m++) {
    __m256 even[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()}, odd[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    for (int k = 0; k < tiles.rows(b); k++) {
      int32_t pair;
      std::memcpy(&pair, tiles.data[a][m] + 4 * k, 4);
      const __m256 even_a = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_set1_epi32(pair), 16));
      const __m256 odd_a = _mm256_castsi256_ps(_mm256_set1_epi32(pair & static_cast<int32_t>(0xffff0000u)));
      for (int h = 0; h < 2; h++) {
        const __m256i pairs = _mm256_load_si256(reinterpret_cast<const __m256i*>(tiles.data[b][k] + 32 * h));
        even[h] = _mm256_fmadd_ps(even_a, _mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16)), even[h]);
        odd[h] = _mm256_fmadd_ps(odd_a, _mm256_castsi256_ps(_mm256_and_si256(pairs, _mm256_set1_epi32(static_cast<int32_t>(0xffff0000u)))), odd[h]);
      }
    }
    for (int h = 0; h < 2; h++) {
      float* sums = reinterpret_cast<float*>(tiles.data[c][m] + 32 * h);
      _mm256_store_ps(sums, _mm256_add_ps(_mm256_load_ps(sums), _mm256_add_ps(even[h], odd[h])));
    }
  }
}

// TDPB[SU][SU]D.
void dot_int8(int c, int a, int b, bool signed_a, bool signed_b) {
  expect_product(c, a, b);
  const auto value = [](uint8_t byte, bool has_sign) { return has_sign ? static_cast<int8_t>(byte) : static_cast<int>(byte); };
  for (int m = 0; m < tiles.rows(c); m++) {
    for (int n = 0; n < tiles.row_bytes(c) / 4; n++) {
      uint32_t sum;
      std::memcpy(&sum, tiles.data[c][m] + 4 * n, 4);
      for (int k = 0; k < tiles.rows(b); k++)
        for (int i = 0; i < 4; i++)
          sum += static_cast<uint32_t>(value(tiles.data[a][m][4 * k + i], signed_a) * value(tiles.data[b][k][4 * n + i], signed_b));
      std::memcpy(tiles.data[c][m] + 4 * n, &sum, 4);
    }
  }
}

// Prefixes pp: 0 none, 1 66, 2 F3, 3 F2.
bool carry_out(const Instruction& i) {
  const bool memory = i.mod != 3;
  if (i.opcode == 0x49) {
    if (memory && i.reg == 0 && i.pp == 0) return load_config(i.base), true;
    if (memory && i.reg == 0 && i.pp == 1) return std::memcpy(i.base, tiles.config, 64), true;
    if (!memory && i.pp == 0 && i.reg == 0 && i.rm == 0) return tiles = Tiles{}, true;
    if (!memory && i.pp == 3 && i.rm == 0) return expect_tile(i.reg), clear(i.reg), true;
    return false;
  }
  if (i.opcode == 0x4b) {
    if (!memory || i.pp == 0) return false;
    if (i.pp == 2) store(i.reg, i);
    else load(i.reg, i);
    return true;
  }
  if (memory) return false;
  if (i.opcode == 0x5e) return dot_int8(i.reg, i.rm, i.vvvv, i.pp >= 2, (i.pp & 1) != 0), true;
  if (i.opcode == 0x5c && i.pp == 2) return dot_bf16(i.reg, i.rm, i.vvvv), true;
  return false;
}

// --- the trap ------------------------------------------------------------------------------------------------------------------
struct sigaction next_action;  // who would handle SIGILL
std::atomic<int64_t> seen[4096];
const char* log_file = nullptr;
int64_t module_start = 0;

void write_down(int64_t address) {
  if (log_file == nullptr) return;
  for (auto& place : seen) {
    int64_t there = place.load();
    if (there == address) return;
    if (there != 0 || !place.compare_exchange_strong(there, address)) {
      if (there == address) return;
      continue;
    }
    char line[40];
    const int size = snprintf(line, sizeof line, "%llx\n", static_cast<unsigned long long>(address - module_start));
    const int file = open(log_file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (file < 0 || write(file, line, static_cast<size_t>(size)) != size) refuse("its place cannot be written down");
    close(file);
    return;
  }
}

void on_illegal(int signal, siginfo_t* info, void* context) {
  ucontext_t& state = *static_cast<ucontext_t*>(context);
  Instruction instruction;
  if (decode(state, instruction)) {
    write_down(state.uc_mcontext.gregs[REG_RIP]);
    const unsigned before = _mm_getcsr();
    _mm_setcsr(0x9fc0);  // nearest even, no exceptions, DAZ, FTZ: tile products heed no other mode
    const bool done = carry_out(instruction);
    _mm_setcsr(before);
    if (done) {
      state.uc_mcontext.gregs[REG_RIP] += instruction.size;
      return;
    }
  }
  if (next_action.sa_flags & SA_SIGINFO) return next_action.sa_sigaction(signal, info, context);
  refuse("it is no tile instruction of AMX-TILE, AMX-INT8 or AMX-BF16");
}

}  // namespace

void trap_amx() {
  log_file = std::getenv("TANDEM_AMX_TRAP_LOG");
  Dl_info module;
  if (dladdr(reinterpret_cast<void*>(&trap_amx), &module) != 0) module_start = reinterpret_cast<int64_t>(module.dli_fbase);
  struct sigaction action = {};
  action.sa_sigaction = on_illegal;
  action.sa_flags = SA_SIGINFO;
  sigemptyset(&action.sa_mask);
  __real_sigaction(SIGILL, &action, &next_action);
}

}  // namespace tandem

// The linker sends this module's calls of sigaction here (--wrap): who wants SIGILL comes behind the trap.
extern "C" int __wrap_sigaction(int signal, const struct sigaction* action, struct sigaction* before) {
  if (signal != SIGILL) return __real_sigaction(signal, action, before);
  if (before != nullptr) *before = tandem::next_action;
  if (action != nullptr) tandem::next_action = *action;
  return 0;
}
