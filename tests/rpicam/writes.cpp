// Writes frames of the given sizes to standard output through rpicam-vid's FileOutput, 30 per second. Built and
// traced by ci/stage/rpicam.
//
//     writes BYTES...

#include <chrono>
#include <cstdlib>
#include <thread>
#include <vector>

#include "core/rpicam_encoder.hpp"
#include "output/file_output.hpp"

int main(int argc, char *argv[])
{
	RPiCamEncoder app;
	char const *words[] = { "rpicam-vid", "--output=-", "--flush" };
	if (!app.GetOptions()->Parse(3, const_cast<char **>(words)))
		return 1;
	FileOutput output(app.GetOptions());
	auto due = std::chrono::steady_clock::now();
	for (int n = 1; n < argc; n++)
	{
		std::vector<char> frame(std::atoi(argv[n]), 'x');
		std::this_thread::sleep_until(due += std::chrono::microseconds(33333));
		output.OutputReady(frame.data(), frame.size(), n * 33333, n == 1);
	}
	return 0;
}
