#include "cpu/tiles.h"

#include <cstdlib>
#include <string>

#include "cpu/device.h"
#include "cpu/isa.h"

namespace tandem {

namespace {
const TileEngine* engines[3] = {};  // filled once by ensure_kernels
}

void register_tiles(TileKind kind, const TileEngine* engine) { engines[static_cast<int>(kind)] = engine; }

Status choose_tiles(Isa isa, const TileEngine*& out) {
  ensure_kernels();
  out = nullptr;
  const char* environment = std::getenv("TANDEM_TILES");
  const std::string name = environment ? environment : "";
  const auto engine = [](TileKind kind) { return engines[static_cast<int>(kind)]; };
  const bool bf16 = runs_build(Isa::amx);  // enough for everything but the hardware's tiles
  const bool amx = available_isas().back() >= Isa::amx;
  const auto refuse = [&](const char* rule) {
    return Status(Code::request_invalid, std::string("[native] ") + rule + "; given TANDEM_TILES=" + name + "; this machine runs off" +
                                             (bf16 ? ", emulated, avx512-bf16" : "") + (amx ? ", amx" : ""));
  };
  if (name == "off") return {};
  if (name == "emulated" || name == "avx512-bf16") {
    if (!bf16) return refuse("this machine must have the tile unit");
    if (isa >= Isa::avx512) out = engine(name == "emulated" ? TileKind::amx_emulated : TileKind::avx512_bf16);
    return {};
  }
  if (name == "amx" && !amx) return refuse("this machine must have the tile unit");
  if (!name.empty() && name != "amx") return refuse("a tile unit is off, emulated, avx512-bf16 or amx");
  if (isa >= Isa::amx) out = engine(TileKind::amx);
  else if (isa >= Isa::avx512 && bf16) out = engine(TileKind::avx512_bf16);
  return {};
}

}  // namespace tandem
