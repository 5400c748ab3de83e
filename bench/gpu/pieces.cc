#include "pieces.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "measure.h"

namespace tandem::bench {

namespace {

constexpr int kMostChildren = 16;
constexpr const char* kNoCard = "[bench] there is a card; ";

volatile sig_atomic_t ended = 0;

struct Found {
  std::vector<std::pair<std::string, std::string>> told;
  std::vector<std::string> rows;
  std::string open, problem;  // the piece that is being done; why the part is over
  size_t begun = 0, failed = 0;
  bool is_open = false, over = false;

  void close(bool passed, const std::string& fields, const std::string& why) {
    rows.push_back("{\"name\": " + quoted(open) + ", \"passed\": " + (passed ? "true" : "false") + (why.empty() ? "" : ", \"problem\": " + quoted(why)) + fields + "}");
    failed += !passed;
    is_open = false;
    if (!why.empty()) say("%s FAILED: %s", open.c_str(), why.c_str());
  }
  // A line of the child: what kind, and its text.
  void take(const std::string& line) {
    const std::string text = line.substr(1);
    switch (line[0]) {
      case 'b': open = text, is_open = true, begun++; return;
      case 'e': return close(text[0] == '1', text.substr(1), "");
      case 't': {
        const size_t at = text.find(' ');
        for (const auto& [key, value] : told)
          if (text.compare(0, at, key) == 0) return;  // an earlier child told it
        told.push_back({text.substr(0, at), text.substr(at + 1)});
        return;
      }
      case 'p': problem = text; return;
      default: over = true;
    }
  }
};

// Lines of one child, until it ends; what it does for too long ends it.
std::string listen(int from, int seconds, Found& found) {
  std::string text;
  double limit = now() + seconds;
  for (;;) {
    pollfd wanted = {from, POLLIN, 0};
    const int ready = poll(&wanted, 1, 200);
    if (ended) return "the part was ended from outside";
    if (ready < 0 && errno != EINTR) return std::strerror(errno);
    if (ready <= 0) {
      if (now() >= limit) return "it took more than " + std::to_string(seconds) + " s";
      continue;
    }
    char buffer[65536];
    const ssize_t bytes = read(from, buffer, sizeof buffer);
    if (bytes <= 0) return "";
    text.append(buffer, static_cast<size_t>(bytes));
    for (size_t end; (end = text.find('\n')) != std::string::npos; text.erase(0, end + 1)) found.take(text.substr(0, end));
    limit = now() + seconds;
  }
}

// How a child ended; one that the kernel cannot end is left behind.
std::string reap(pid_t child, bool kill_it) {
  if (kill_it) kill(child, SIGKILL);
  int status = 0;
  for (const double limit = now() + (ended ? 0.5 : 5); waitpid(child, &status, WNOHANG) == 0; usleep(20000)) {
    if (now() < limit) continue;
    kill(child, SIGKILL);
    return "it does not end";
  }
  return WIFSIGNALED(status) ? "it took its process with it (signal " + std::to_string(WTERMSIG(status)) + ")" : "";
}

std::string json(const Found& found) {
  std::string text = "{";
  for (const auto& [key, value] : found.told) text += quoted(key) + ": " + value + ", ";
  return text + "\"pieces\": " + std::to_string(found.rows.size()) + ", \"failed\": " + std::to_string(found.failed) + ", \"problem\": " + quoted(found.problem) + ", \"results\": " +
         array(found.rows, ",\n  ") + "}";
}

}  // namespace

Status no_card(const cuda::Gpus& gpus) { return Status(Code::native_failed, kNoCard + (gpus.problem.empty() ? "this machine has no driver" : gpus.problem)); }

Status open_card(const cuda::KernelFile& kernels, std::unique_ptr<cuda::Device>& out) {
  const cuda::Gpus gpus = cuda::list_gpus(kernels, false);
  return gpus.list.empty() ? no_card(gpus) : cuda::Device::open(0, kernels, out);
}

void Pieces::send(char kind, const std::string& text) {
  if (pipe_ < 0) {
    failed_ += kind == 'e' && text[0] == '0';
    return;
  }
  std::string line = kind + text;
  for (char& c : line)
    if (c == '\n') c = ' ';
  line += '\n';
  for (size_t at = 0; at < line.size();) {
    const ssize_t written = write(pipe_, line.data() + at, line.size() - at);
    if (written <= 0) std::_Exit(1);  // the parent is gone
    at += static_cast<size_t>(written);
  }
}

void Pieces::tell(const char* key, const std::string& value) { send('t', std::string(key) + " " + value); }

Status Pieces::run(const std::string& name, const std::function<Status(Fields&)>& work) {
  if (next_++ < begun_) return {};
  send('b', name);
  Fields found;
  const Status status = work(found);
  std::string text = status.ok() ? "1" : "0";
  if (!status.ok()) {
    say("%s FAILED: %s", name.c_str(), status.message().c_str());
    text += ", \"problem\": " + quoted(status.message());
  }
  for (const auto& [key, value] : found) text += ", " + quoted(key) + ": " + value;
  send('e', text);
  if (device_ == nullptr) return status;
  return device_->lost() ? device_->loss() : Status();
}

int in_pieces(int seconds, const std::function<Status(Pieces&)>& body) {
  if (std::getenv("TANDEM_BENCH_ALONE") != nullptr) {
    Pieces pieces;
    const Status status = body(pieces);
    if (!status.ok()) say("%s", status.message().c_str());
    return status.ok() && pieces.failed_ == 0 && pieces.next_ > 0 ? 0 : 1;
  }
  struct sigaction action = {};
  action.sa_handler = [](int) { ended = 1; };
  sigaction(SIGTERM, &action, nullptr);
  Found found;
  for (int children = 0; !found.over && !ended; children++) {
    if (children == kMostChildren) {
      found.problem = std::to_string(children) + " processes ended before the last piece";
      break;
    }
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) return 2;
    const size_t before = found.begun;
    const pid_t child = fork();
    if (child < 0) return 2;
    if (child == 0) {
      signal(SIGTERM, SIG_DFL);
      close(ends[0]);
      Pieces pieces;
      pieces.pipe_ = ends[1], pieces.begun_ = before;
      const Status status = body(pieces);
      if (status.ok()) pieces.send('d', "");
      else pieces.send('p', status.message());
      std::fflush(nullptr);
      std::_Exit(0);  // what a lost card keeps is not given back
    }
    close(ends[1]);
    found.problem.clear();
    const std::string stopped = listen(ends[0], seconds, found);
    close(ends[0]);
    const std::string died = reap(child, !stopped.empty());
    const std::string why = stopped.empty() ? died : stopped;
    if (found.is_open) found.close(false, "", why.empty() ? found.problem.empty() ? "it ended its process" : found.problem : why);
    else if (found.begun == before && !found.over) {
      if (found.problem.empty()) found.problem = why.empty() ? "nothing begins" : why;
      break;
    }
  }
  if (ended && found.problem.empty()) found.problem = "the part was ended from outside";
  if (!found.problem.empty()) say("%s", found.problem.c_str());
  say("%zu of %zu pieces passed", found.rows.size() - found.failed, found.rows.size());
  std::printf("%s\n", json(found).c_str());
  std::fflush(stdout);
  if (found.problem.rfind(kNoCard, 0) == 0) return 3;
  return found.over && found.failed == 0 && !found.rows.empty() ? 0 : 1;
}

}  // namespace tandem::bench
