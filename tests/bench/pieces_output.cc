#include "tests/bench/pieces_output.h"

#include <sstream>
#include <string>

namespace xenspan::bench {

Result<PiecesOutput> pieces_output(const Process::End& end) {
  PiecesOutput output;
  std::istringstream text(end.output);
  std::string word;
  double pieces = 0;
  while (text >> word && word.find('=') == std::string::npos && text >> pieces)
    output.points.push_back({std::stod(word), pieces});
  if (end.status != 0 || word.find("pieces=") != 0)
    return Error{0, "a piece was lost or is wrong: " + end.output.substr(0, 100)};
  text >> word;  // "by"
  while (text >> pieces) {
    output.by.push_back(pieces);
    text.ignore();  // the comma
  }
  return output;
}

}  // namespace xenspan::bench
