#include "cpu/isa.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <fstream>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "cpu/tiles.h"
#ifdef TANDEM_AMX_TRAP
#include "test/trap/amx_trap.h"
#endif

namespace tandem {

namespace {

#if defined(__x86_64__)

uint64_t read_xcr0() {
  uint32_t low, high;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<uint64_t>(high) << 32) | low;
}

// Linux gives a process tile registers only when it asks, once.
bool request_tiles() {
  constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long kTileData = 18;               // XFEATURE_XTILE_DATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

std::string trimmed(const char* text, size_t size) {
  std::string s(text, strnlen(text, size));
  while (!s.empty() && s.back() == ' ') s.pop_back();
  while (!s.empty() && s.front() == ' ') s.erase(0, 1);
  return s;
}

CpuFeatures detect() {
  CpuFeatures f;
  uint32_t a, b, c, d;
  if (!__get_cpuid(0, &a, &b, &c, &d)) return f;
  char vendor[12];
  std::memcpy(vendor, &b, 4);
  std::memcpy(vendor + 4, &d, 4);
  std::memcpy(vendor + 8, &c, 4);
  f.vendor = trimmed(vendor, sizeof vendor);
  char brand[48] = {};
  for (uint32_t i = 0; i < 3; i++) {
    uint32_t words[4] = {};
    if (__get_cpuid(0x80000002 + i, &words[0], &words[1], &words[2], &words[3])) std::memcpy(brand + 16 * i, words, 16);
  }
  f.model = trimmed(brand, sizeof brand);

  if (!__get_cpuid(1, &a, &b, &c, &d)) return f;
  const auto bit = [](uint32_t word, int index) { return ((word >> index) & 1) != 0; };
  if (!bit(c, 27)) return f;  // OSXSAVE: without it nothing wider than SSE may be used
  const uint64_t xcr0 = read_xcr0();
  const bool ymm = (xcr0 & 0x6) == 0x6;
  const bool zmm = (xcr0 & 0xe6) == 0xe6;
  const bool tiles = (xcr0 & 0x60000) == 0x60000;
  f.fma = ymm && bit(c, 12);
  f.f16c = ymm && bit(c, 29);
  f.popcnt = bit(c, 23);
  uint32_t extended[4];
  f.lzcnt = __get_cpuid(0x80000001, &extended[0], &extended[1], &extended[2], &extended[3]) && bit(extended[2], 5);
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return f;
  const uint32_t most = a;
  f.avx2 = ymm && bit(b, 5);
  f.bmi = bit(b, 3);
  f.bmi2 = bit(b, 8);
  f.avx512f = zmm && bit(b, 16);
  f.avx512dq = zmm && bit(b, 17);
  f.avx512cd = zmm && bit(b, 28);
  f.avx512bw = zmm && bit(b, 30);
  f.avx512vl = zmm && bit(b, 31);
  f.avx512vbmi = zmm && bit(c, 1);
  f.avx512vnni = zmm && bit(c, 11);
  f.avx512fp16 = zmm && bit(d, 23);
  const bool tile_bits = bit(d, 24), tile_int8 = bit(d, 25), tile_bf16 = bit(d, 22);
  if (most >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d)) f.avx512bf16 = zmm && bit(a, 5);
  if (tile_bits && tile_bf16) {
    // What CPUID names counts only if it works: virtual machines may lack the support behind it.
    if (!tiles) f.amx_problem = "the operating system does not save tile registers";
    else if (!request_tiles()) f.amx_problem = "the operating system gave no permission to use tiles";
    else f.amx_problem = try_amx();
    f.amx_tile = f.amx_bf16 = f.amx_problem.empty();
    f.amx_int8 = f.amx_tile && tile_int8;
  }
#ifdef TANDEM_AMX_TRAP
  if (!f.amx_tile) {
    trap_amx();
    f.amx_problem = try_amx();
    f.amx_tile = f.amx_int8 = f.amx_bf16 = f.amx_problem.empty();
  }
#endif
  return f;
}

#else

CpuFeatures detect() {
  CpuFeatures f;
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    const size_t colon = line.find(':');
    if (colon != std::string::npos && line.rfind("model name", 0) == 0) f.model = line.substr(colon + 2);
  }
  return f;
}

#endif

bool has_wide_bf16() { return cpu_features().avx512bf16 && cpu_features().avx512vbmi; }

std::vector<Isa> find_isas() {
  const CpuFeatures& f = cpu_features();
  std::vector<Isa> isas{Isa::scalar};
  // All that the build's flags name (CMakeLists.txt): virtual machines may hide some of it.
  if (!(f.avx2 && f.fma && f.f16c && f.bmi && f.bmi2 && f.lzcnt && f.popcnt)) return isas;
  isas.push_back(Isa::avx2);
  if (!(f.avx512f && f.avx512bw && f.avx512vl && f.avx512dq && f.avx512cd && f.avx512vnni)) return isas;
  isas.push_back(Isa::avx512);
  if (!(has_wide_bf16() && f.amx_tile && f.amx_int8 && f.amx_bf16)) return isas;
  isas.push_back(Isa::amx);
  return isas;
}

}  // namespace

std::vector<std::string> CpuFeatures::names() const {
  const std::pair<bool, const char*> all[] = {
      {avx2, "avx2"}, {fma, "fma"}, {f16c, "f16c"}, {bmi, "bmi"}, {bmi2, "bmi2"}, {lzcnt, "lzcnt"}, {popcnt, "popcnt"}, {avx512f, "avx512f"}, {avx512bw, "avx512bw"},
      {avx512vl, "avx512vl"}, {avx512dq, "avx512dq"}, {avx512cd, "avx512cd"}, {avx512vnni, "avx512vnni"},
      {avx512bf16, "avx512bf16"}, {avx512vbmi, "avx512vbmi"}, {avx512fp16, "avx512fp16"}, {amx_tile, "amx-tile"},
      {amx_int8, "amx-int8"}, {amx_bf16, "amx-bf16"}};
  std::vector<std::string> found;
  for (const auto& [has, name] : all)
    if (has) found.push_back(name);
  return found;
}

const CpuFeatures& cpu_features() {
  static const CpuFeatures& features = *new CpuFeatures(detect());  // never destroyed, see core/kernel.cc
  return features;
}

const std::vector<Isa>& available_isas() {
  static const std::vector<Isa>& isas = *new std::vector<Isa>(find_isas());
  return isas;
}

bool runs_build(Isa isa) {
  const Isa best = available_isas().back();
  return isa <= best || (isa == Isa::amx && best == Isa::avx512 && has_wide_bf16());
}

Status choose_isa(std::string_view requested, Isa& out) {
  const char* environment = std::getenv("TANDEM_ISA");
  const bool from_environment = requested.empty();
  std::string name(requested);
  if (name.empty() && environment != nullptr) name = environment;
  const std::vector<Isa>& isas = available_isas();
  if (name.empty()) {
    out = isas.back();
    return {};
  }
  std::string list;
  for (Isa isa : isas) {
    if (name == isa_name(isa)) {
      out = isa;
      return {};
    }
    list += std::string(list.empty() ? "" : ", ") + isa_name(isa);
  }
  const bool known = name == "scalar" || name == "avx2" || name == "avx512" || name == "amx";
  return Status(Code::request_invalid, std::string("[native] ") + (known ? "this machine must have the instruction set" : "an instruction set is scalar, avx2, avx512 or amx") +
                                           "; given " + (from_environment ? "TANDEM_ISA=" : "isa ") + name + "; this machine runs " + list);
}

}  // namespace tandem
