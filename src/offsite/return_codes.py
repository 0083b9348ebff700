"""Every return code there is, by which programs tell one refusal from another. A code has one meaning.

A code is ME4's where ME4 has one that means the same. All others are Offsite's own, from -20000 to -20999; one that is
not used any more is not given to anything else. docs/return-codes.md, made from this, tells what each means.
"""

from __future__ import annotations

from enum import IntEnum, unique

OWN = range(-20999, -19999)


@unique
class ReturnCode(IntEnum):
    """Named as the error is that has it: see `offsite.errors`."""

    # ME4's
    AUTHENTICATION_FAILED = 2
    LUN_IN_USE = -3177
    IMAGE_NEEDED = -3442
    USAGE_ERROR = -10007
    SESSION_EXPIRED = -10027
    SNAPSHOT_NOT_FOUND = -10050
    BAD_PARAMETER = -10058
    MAP_NOT_FOUND = -10074
    VOLUME_NOT_FOUND = -10075
    NAME_IN_USE = -10186
    INITIATOR_NOT_FOUND = -10386

    OFFSITE_ERROR = -20000

    # Pools and the state directory
    POOL_FULL = -20001
    POOL_FAILED = -20002
    STATE_DIRECTORY_ERROR = -20003
    DO_NOT_BELONG_TOGETHER = -20030
    DEVICE_NOT_EMPTY = -20031
    STATE_DIRECTORY_FULL = -20032

    # Replication
    PEER_UNREACHABLE = -20010
    PEER_REFUSED = -20011
    CERTIFICATE_CHANGED = -20012
    PROTOCOL_ERROR = -20013
    DIGEST_MISMATCH = -20014
    SET_DIVERGED = -20015
    NOT_REPLACED = -20016
    INCARNATION_REFUSED = -20017
    HOOK_FAILED = -20020
    RUN_ENDED = -20021
    DIGESTS_DIFFER = -20024
    SECONDARY_SETS_DISABLED = -20070
    PEER_LIMIT_REACHED = -20071

    # Management
    NOTICE_NOT_SENT = -20040
    NO_PLACE = -20050
    USER_CHANGED = -20060
    TOO_MANY_LOGINS = -20061
    CERTIFICATE_REVOKED = -20062
    IN_USE = -20080
    OBJECT_NOT_FOUND = -20081
    NOT_ALLOWED = -20082
    START_STOPPED = -20083
    PROGRAM_FAULT = -20084
    LIMIT_REACHED = -20085
    BUSY = -20086

    # The command line, about itself
    UNREACHABLE = -20090
    UNKNOWN_CERTIFICATE = -20091
    DECLINED = -20092
    RUN_FAILED = -20093
    RUN_DROPPED = -20094
