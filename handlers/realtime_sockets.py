"""Operations of the tag Realtime sockets."""

from handlers.runtime.exceptions import UpgradeRequired
from handlers.runtime.messages import Reply, Request


async def connect_realtime(_request: Request) -> Reply:
    """
    Refuse a plain request; a handshake is taken before it comes here.

    Raises:
        UpgradeRequired: Always (426).

    Source: operation `connectRealtime`.
    """
    raise UpgradeRequired


async def connect_realtime_socket(_request: Request) -> Reply:
    """
    Refuse a plain request; a handshake is taken before it comes here.

    Raises:
        UpgradeRequired: Always (426).

    Source: operation `connectRealtimeSocket`.
    """
    raise UpgradeRequired
