// rpicam-vid with made-up pictures instead of a camera: its options, its encoders and its output are those of
// librpicam_app. Built and used by ci/stage/rpicam.

#include <chrono>
#include <cstring>
#include <iostream>
#include <memory>
#include <thread>
#include <vector>

#include <libcamera/formats.h>

#include "core/rpicam_encoder.hpp"
#include "output/output.hpp"

using namespace std::placeholders;

namespace
{

// The values of the options. Since version 1.8, they are behind Get().
template <typename O> auto &values(O &options)
{
	if constexpr (requires { options.Get(); })
		return options.Get();
	else
		return options;
}

// More pictures than an encoder holds at the same time.
constexpr size_t PICTURES = 32;

// A picture in YUV420 with moving bars and noise, so that every frame differs from the one before.
void draw(std::vector<uint8_t> &picture, StreamInfo const &info, unsigned int number)
{
	uint32_t noise = number * 2654435761u + 1;
	for (unsigned int y = 0; y < info.height; y++)
	{
		uint8_t *line = picture.data() + y * info.stride;
		for (unsigned int x = 0; x < info.width; x++)
		{
			noise = noise * 1664525u + 1013904223u;
			line[x] = 16 + ((x + 4 * number) / 32 % 2) * 128 + (noise >> 28);
		}
	}
	std::memset(picture.data() + info.stride * info.height, 128, info.stride * info.height / 2);
}

void stream(RPiCamEncoder &app)
{
	VideoOptions *options = app.GetOptions();
	auto &value = values(*options);
	PostProcessor post_processor(&app);
	if (!value.post_process_file.empty())
	{
		post_processor.LoadModules(value.post_process_libs);
		post_processor.Read(value.post_process_file);
	}
	std::unique_ptr<Output> output(Output::Create(options));
	StreamInfo info;
	info.width = value.width;
	info.height = value.height;
	info.stride = (info.width + 63) / 64 * 64;
	info.pixel_format = libcamera::formats::YUV420;
	info.colour_space = libcamera::ColorSpace::Rec709;
	std::unique_ptr<Encoder> encoder(Encoder::Create(options, info));
	encoder->SetInputDoneCallback([](void *) {});
	encoder->SetOutputReadyCallback(std::bind(&Output::OutputReady, output.get(), _1, _2, _3, _4));
	std::vector<std::vector<uint8_t>> pictures(PICTURES);
	auto const period = std::chrono::microseconds(int64_t(1e6 / value.framerate.value_or(30)));
	auto due = std::chrono::steady_clock::now();
	for (unsigned int number = 0;; number++, due += period)
	{
		auto &picture = pictures[number % PICTURES];
		picture.resize(info.stride * info.height * 3 / 2);
		draw(picture, info, number);
		std::this_thread::sleep_until(due);
		encoder->EncodeBuffer(-1, picture.size(), picture.data(), info, 1 + number * period.count());
	}
}

} // namespace

int main(int argc, char *argv[])
{
	try
	{
		RPiCamEncoder app;
		if (app.GetOptions()->Parse(argc, argv))
			stream(app);
	}
	catch (std::exception const &e)
	{
		std::cerr << "ERROR: *** " << e.what() << " ***" << std::endl;
		return -1;
	}
	return 0;
}
