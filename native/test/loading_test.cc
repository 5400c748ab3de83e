// Files under load: mappings whose file goes away, reads past the page cache, what the report says.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include "core/loading.h"
#include "core/mapping.h"
#include "core/model_file.h"
#include "test/harness.h"

namespace tandem {

namespace {

constexpr size_t kBytes = size_t{3} << 20;

// Bytes that say where they are. Goes when the test ends.
struct PatternFile {
  PatternFile() {
    char name[] = "/tmp/tandem-test-XXXXXX";
    descriptor = mkstemp(name);
    path = name;
    std::vector<uint8_t> bytes(kBytes);
    for (size_t i = 0; i < kBytes; i++) bytes[i] = at(i);
    EXPECT(write(descriptor, bytes.data(), kBytes) == static_cast<ssize_t>(kBytes));
    fsync(descriptor);  // dirty pages cannot be dropped
  }
  ~PatternFile() {
    close(descriptor);
    unlink(path.c_str());
  }
  static uint8_t at(size_t i) { return static_cast<uint8_t>(1 + (i ^ i >> 9) % 255); }
  std::string path;
  int descriptor;
};

}  // namespace

TEST(mapping_reads_zeros_once_its_file_is_cut) {
  PatternFile file, other;
  Mapping cut, whole;
  EXPECT(cut.map(file.descriptor, kBytes) && whole.map(other.descriptor, kBytes));
  EXPECT(cut.data()[kBytes - 1] == PatternFile::at(kBytes - 1) && !cut.lost());
  EXPECT(cut.populate(100, kBytes - 5));
  EXPECT(ftruncate(file.descriptor, 10) == 0);
  EXPECT(!cut.lost());
  EXPECT(!cut.populate(kBytes / 2, kBytes));
  std::atomic<int> sum{0};
  std::vector<std::thread> threads;
  for (size_t t = 0; t < 4; t++)
    threads.emplace_back([&, t] { sum += cut.data()[kBytes / 2 + t * 8192]; });
  for (std::thread& thread : threads) thread.join();
  EXPECT(sum == 0 && cut.lost() && cut.data()[0] == 0);
  EXPECT(!whole.lost() && whole.data()[kBytes / 2] == PatternFile::at(kBytes / 2));
  // The place in the handler's table is free again, and clean.
  cut.release();
  Mapping next;
  EXPECT(next.map(other.descriptor, kBytes) && !next.lost());
  Mapping moved = std::move(next);
  EXPECT(next.data() == nullptr && !next.lost() && moved.data()[7] == PatternFile::at(7));
}

TEST(model_file_reads_the_same_through_the_cache_and_past_it) {
  PatternFile on_disk;
  ModelFile file;
  EXPECT_OK(file.open(on_disk.path));
  EXPECT(file.size() == kBytes && file.cached(0, kBytes));
  file.drop(0, kBytes);
  std::vector<uint8_t> bytes(5000);
  void* buffer = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  uint8_t* direct = static_cast<uint8_t*>(buffer);
  bool supported = false;
  EXPECT_OK(file.read_direct(8192, kBytes - 8192, direct, supported));
  for (size_t i = 0; supported && i < kBytes - 8192; i += 77) EXPECT(direct[i] == PatternFile::at(8192 + i));
  EXPECT_OK(file.read(777, bytes.size(), bytes.data()));
  for (size_t i = 0; i < bytes.size(); i++) EXPECT(bytes[i] == PatternFile::at(777 + i));
  EXPECT(ftruncate(on_disk.descriptor, 100000) == 0);
  const Status short_read = file.read(99000, 5000, bytes.data());
  EXPECT(short_read.code() == Code::file_io && short_read.message().find(on_disk.path + " at byte 100000: the file ends") != std::string::npos);
  const Status past = file.read_direct(98304, 8192, direct, supported);
  EXPECT(!supported || past.code() == Code::file_io);
  munmap(buffer, kBytes);
}

TEST(model_file_notices_that_it_was_written_to) {
  PatternFile on_disk;
  ModelFile file;
  EXPECT_OK(file.open(on_disk.path));
  EXPECT(ftruncate(on_disk.descriptor, kBytes - 1) == 0);
  EXPECT_OK(file.unchanged());  // not mapped: nothing of it is in use
  EXPECT_OK(file.map());
  EXPECT(file.unchanged().message().find("has " + std::to_string(kBytes - 1) + " now") != std::string::npos);
  EXPECT(ftruncate(on_disk.descriptor, kBytes) == 0);
  struct timespec times[2] = {{0, UTIME_OMIT}, {1, 0}};
  EXPECT(futimens(on_disk.descriptor, times) == 0);
  const Status status = file.unchanged();
  EXPECT(status.code() == Code::file_io && status.message().find("was written to") != std::string::npos);
}

TEST(load_report_says_what_was_done) {
  LoadReport report;
  EXPECT(report.sentence() == "weights given as bytes" && report.ways() == "pages");
  report.in_pages = 9700000000;
  report.huge = 9690000000;
  report.from_cache = 9700000000;
  report.seconds = 4.62;
  EXPECT(report.sentence() == "9.7 GB into huge pages from the page cache, 2.1 GB/s");
  report.huge = 3000000000;
  report.from_cache = 2000000000;
  report.from_disk = 7700000000;
  EXPECT(report.sentence() == "9.7 GB into pages (31 % huge) from the disk, 21 % from the page cache, 2.1 GB/s");
  report.mapped = 377000000000;
  report.experts_mapped = true;
  report.needed = 382000000000;
  report.available = 120000000000;
  EXPECT(report.ways() == "pages, experts mmap");
  EXPECT(report.sentence().find("; experts stay mapped (needs 382.0 GB, 120.0 GB free)") != std::string::npos);
  report.dense_mapped = true;
  EXPECT(report.ways() == "mmap" && report.sentence().find("377.0 GB mapped in pages from") == 0);
  report.in_pages = 36000000000;
  EXPECT(report.sentence().find("377.0 GB mapped in pages, 36.0 GB in memory of its own from") == 0);
}

}  // namespace tandem
