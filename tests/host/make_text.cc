// make_text BYTES [SEED]: writes so many bytes of text-like data to standard output, the same for
// the same arguments on every machine. Words have natural lengths and frequencies (Zipf), so that
// it compresses a little less than prose: about 2.3 to 1.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

namespace {

// SplitMix64: the standard library's distributions differ between implementations, this does not.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}
  std::uint64_t next() {
    std::uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  std::uint64_t below(std::uint64_t limit) { return next() % limit; }

 private:
  std::uint64_t state_;
};

constexpr std::size_t kWords = 1 << 15;

std::vector<std::string> vocabulary(Random& random) {
  static constexpr char kLetters[] = "eeeeeetttttaaaaooooiiiinnnnsssshhhrrrdddlllcuumwfgypbvk";
  std::vector<std::string> words(kWords);
  for (std::string& word : words) {
    const std::size_t length = 1 + random.below(4) + random.below(4) + random.below(4);
    while (word.size() < length) word += kLetters[random.below(sizeof kLetters - 1)];
  }
  return words;
}

// Small numbers far more often than large ones: each power of two of ranks is about equally likely.
std::size_t rank(Random& random) {
  const std::uint64_t bits = random.below(16);
  return (std::uint64_t{1} << bits) - 1 + random.below(std::uint64_t{1} << bits);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2 || argc > 3) {
    std::fprintf(stderr, "usage: make_text BYTES [SEED]\n");
    return 2;
  }
  std::uint64_t left = std::strtoull(argv[1], nullptr, 10);
  Random random(argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 1);
  const std::vector<std::string> words = vocabulary(random);
  std::string block;
  unsigned column = 0;
  while (left > 0) {
    block.clear();
    while (block.size() < (1 << 16)) {
      const std::string& word = words[rank(random) % kWords];
      block += word;
      column += static_cast<unsigned>(word.size()) + 1;
      const std::uint64_t mark = random.below(16);
      if (mark == 0) block += '.';
      if (mark == 1) block += ',';
      block += column > 76 ? '\n' : ' ';
      if (column > 76) column = 0;
    }
    if (block.size() > left) block.resize(left);
    if (std::fwrite(block.data(), 1, block.size(), stdout) != block.size()) {
      std::perror("make_text");
      return 1;
    }
    left -= block.size();
  }
  return std::fclose(stdout) == 0 ? 0 : 1;
}
