"""NBD: the protocol of https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md, fixed newstyle."""
