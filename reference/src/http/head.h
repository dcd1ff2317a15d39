#pragma once

// The strict reading of a request's head, before httplib reads it.
//
// httplib takes much that a proxy before us would read in another way: line ends without CR, a
// blank before the colon, one header twice. Where two readers can differ a request can be hidden in
// another, so whatever is unclear is refused.

#include <span>

namespace reference::http {

/// `head` is everything up to and with the empty line. Throws Problem: 400, or 431 if a header is
/// longer than httplib can take. Headers called Range get another name: what httplib answers to a
/// few hundred of them is hundreds of bodies, and whoever serves may ignore them.
void check_head(std::span<char> head);

}  // namespace reference::http
