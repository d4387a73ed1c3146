// One picture from a file of the form `seeded`: sample MODEL.onnx SEED LABEL > picture.pgm
#include <onnxruntime_cxx_api.h>
#include <cstdio>
#include <cstdlib>
#include <utility>

int main(int argc, char** argv) try {
  if (argc != 4) throw Ort::Exception("expected MODEL.onnx SEED LABEL", ORT_INVALID_ARGUMENT);
  Ort::Env env(ORT_LOGGING_LEVEL_ERROR);
  Ort::Session session(env, argv[1], Ort::SessionOptions{});
  auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  int64_t seed = std::atoll(argv[2]), label = std::atoll(argv[3]), one = 1;
  Ort::Value values[] = {Ort::Value::CreateTensor<int64_t>(memory, &seed, 1, &one, 1),
                         Ort::Value::CreateTensor<int64_t>(memory, &label, 1, &one, 1)};
  const char *inputs[] = {"seed", "label"}, *outputs[] = {"image"};
  auto image = std::move(session.Run({}, inputs, values, 2, outputs, 1)[0]);
  auto shape = image.GetTensorTypeAndShapeInfo().GetShape();  // 1, height, width, channels
  std::printf(shape[3] == 3 ? "P6 %d %d 255\n" : "P5 %d %d 255\n", int(shape[2]), int(shape[1]));
  std::fwrite(image.GetTensorData<uint8_t>(), 1, shape[1] * shape[2] * shape[3], stdout);
} catch (const Ort::Exception& error) {
  std::fprintf(stderr, "error: %s\n", error.what());
  return 1;
}
