#include "core/loading.h"

#include <cmath>
#include <cstdio>

#include "core/memory.h"

namespace tandem {

namespace {

// "huge pages", "pages (40 % huge)", "pages".
std::string pages_of(int64_t huge, int64_t bytes) {
  const double share = bytes > 0 ? static_cast<double>(huge) / static_cast<double>(bytes) : 0;
  if (share >= 0.95) return "huge pages";
  if (share < 0.01) return "pages";
  return "pages (" + std::to_string(std::lround(share * 100)) + " % huge)";
}

std::string gigabytes(int64_t bytes) { return format_bytes(static_cast<double>(bytes)); }

}  // namespace

std::string LoadReport::ways() const {
  if (mapped == 0) return "pages";
  return dense_mapped ? "mmap" : "pages, experts mmap";
}

std::string LoadReport::sentence() const {
  if (in_pages + mapped == 0) return "weights given as bytes";
  std::string text;
  const std::string where = pages_of(huge, in_pages + mapped);
  if (mapped == 0) text = gigabytes(in_pages) + " into " + where;
  else if (!dense_mapped) text = gigabytes(in_pages) + " into " + pages_of(huge, in_pages);
  else text = gigabytes(mapped) + " mapped in " + where;
  // Norms and the like are always read; more is of matrices that are stored column by column.
  if (dense_mapped && in_pages > mapped / 20) text += ", " + gigabytes(in_pages) + " in memory of its own";
  const int64_t read = from_cache + from_disk;
  if (read > 0) {
    const double cached = static_cast<double>(from_cache) / static_cast<double>(read);
    if (cached > 0.99) text += " from the page cache";
    else if (cached < 0.01) text += " from the disk";
    else text += " from the disk, " + std::to_string(std::lround(cached * 100)) + " % from the page cache";
    if (seconds > 0) {
      char rate[32];
      std::snprintf(rate, sizeof rate, ", %.1f GB/s", static_cast<double>(read) / seconds / 1e9);
      text += rate;
    }
  }
  if (experts_mapped)
    text += "; experts stay mapped (needs " + gigabytes(needed) + ", " + gigabytes(available) + " free)";
  return text;
}

}  // namespace tandem
