// Captures and graphs of the fake driver.
#include "cuda/fake/work.h"

using namespace tandem::cuda;
using namespace tandem::cuda::fake;

EXPORT Result cuStreamBeginCapture_v2(StreamHandle* stream, int) {
  ENTER(cuStreamBeginCapture_v2);
  stream->capture = std::make_shared<Capture>();
  stream->capture->origin = stream;
  stream->capture->tips[stream];
  return 0;
}
EXPORT Result cuStreamEndCapture(StreamHandle* stream, GraphHandle** out) {
  const Result told = enter("cuStreamEndCapture");
  const std::shared_ptr<Capture> capture = stream->capture;
  if (!capture || capture->origin != stream) return 903;
  // All that was captured has to come before the end of the stream that began.
  std::set<size_t> joined;
  std::vector<size_t> open = capture->tips[stream];
  while (!open.empty()) {
    const size_t at = open.back();
    open.pop_back();
    if (!joined.insert(at).second) continue;
    open.insert(open.end(), capture->nodes[at].after.begin(), capture->nodes[at].after.end());
  }
  for (auto& [member, tips] : capture->tips) member->capture = nullptr;
  if (told != 0) return told;  // the capture is over all the same
  if (joined.size() != capture->nodes.size()) return 904;
  *out = new GraphHandle{capture->nodes};
  made().insert(*out);
  state().alive++;
  return 0;
}
EXPORT Result cuGraphDestroy(GraphHandle* graph) {
  made().erase(graph);
  delete graph;
  state().alive--;
  return enter("cuGraphDestroy");
}
EXPORT Result cuGraphInstantiateWithFlags(GraphExecHandle** out, GraphHandle* graph, unsigned long long) {
  ENTER(cuGraphInstantiateWithFlags);
  *out = new GraphExecHandle{std::make_shared<std::vector<Node>>(graph->nodes)};
  made().insert(*out);
  state().alive++;
  return 0;
}
EXPORT Result cuGraphLaunch(GraphExecHandle* graph, StreamHandle* stream) {
  ENTER(cuGraphLaunch);
  return make(stream, [nodes = graph->nodes, stream] { run_nodes(*nodes, stream); });
}
EXPORT Result cuGraphExecDestroy(GraphExecHandle* graph) {
  ENTER(cuGraphExecDestroy);
  made().erase(graph);
  delete graph;
  state().alive--;
  return 0;
}
