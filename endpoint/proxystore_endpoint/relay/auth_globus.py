"""Globus Auth for a relay: the client shows an access token, the relay asks Globus about it.

Token introspection is RFC 7662; a resource server must check that it is the token's audience.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping
from importlib.util import find_spec
from typing import Any, Final
from uuid import UUID

from proxystore_core.exceptions import MissingExtraError
from proxystore_endpoint.exceptions import (
    EndpointConfigError,
    RelayRefusedError,
    RelayUnreachableError,
)
from proxystore_endpoint.relay.auth import Claim, Principal
from proxystore_endpoint.relay.messages import Proof

CLIENT_ID: Final = "PROXYSTORE_GLOBUS_CLIENT_ID"
CLIENT_SECRET: Final = "PROXYSTORE_GLOBUS_CLIENT_SECRET"  # noqa: S105 - the name of a variable
TOKEN: Final = "PROXYSTORE_RELAY_TOKEN"  # noqa: S105 - the name of a variable
_AT_ONCE: Final = 8


def _need_sdk() -> None:
    if find_spec("globus_sdk") is None:
        raise MissingExtraError("globus-compute", needed_for="Authentication with Globus")


class GlobusAuthenticator:
    """Lets those in whose token Globus Auth issued for this relay.

    Args:
        client_id: The relay's Globus application; else from `PROXYSTORE_GLOBUS_CLIENT_ID`.
        client_secret: Its secret; else from `PROXYSTORE_GLOBUS_CLIENT_SECRET`.
        audience: What the token has to be issued for; by default the application.
        users: Usernames (`name@example.org`), or domains (`@example.org`), that may use the
            relay; by default everyone whom Globus knows.
        client: A client of Globus Auth to use instead of one made from the first two.

    Raises:
        EndpointConfigError: If there is no client id or secret.
        MissingExtraError: If Globus' library is not installed.
    """

    method = "globus"

    def __init__(
        self,
        client_id: str | None = None,
        client_secret: str | None = None,
        *,
        audience: str | None = None,
        users: Iterable[str] | None = None,
        client: Any = None,
    ) -> None:
        client_id = client_id or os.environ.get(CLIENT_ID)
        client_secret = client_secret or os.environ.get(CLIENT_SECRET)
        if client is None:
            if not client_id or not client_secret:
                raise EndpointConfigError(
                    "Globus authentication needs the relay's client_id and client_secret, or "
                    f"{CLIENT_ID} and {CLIENT_SECRET} in the environment.",
                    field="auth.kwargs",
                )
            _need_sdk()
            import globus_sdk

            client = globus_sdk.ConfidentialAppAuthClient(client_id, client_secret)
        if audience is None and client_id is None:
            raise EndpointConfigError("Say which audience tokens must have.", field="auth.kwargs")
        self._client = client
        self._audience = audience or client_id
        self._users = None if users is None else frozenset(user.lower() for user in users)
        self._turns = asyncio.Semaphore(_AT_ONCE)  # each takes a thread while Globus answers

    async def authenticate(self, claim: Claim) -> Principal:
        """Ask Globus Auth about the token."""
        token = claim.proof.token
        if not token:
            raise RelayRefusedError("The relay needs a token of Globus Auth.")
        async with self._turns:
            about = await asyncio.to_thread(self._introspect, token)
        if not about.get("active"):
            raise RelayRefusedError("The token expired or was revoked: log in again.")
        audience = about.get("aud") or ()
        if self._audience not in ([audience] if isinstance(audience, str) else audience):
            raise RelayRefusedError(
                f"The token was issued for another service, not for {self._audience}: ask for "
                "the relay's scope."
            )
        name = str(about.get("username") or about.get("sub") or "")
        if not self._allowed(name.lower()):
            raise RelayRefusedError(f"{name} may not use this relay.")
        expires = about.get("exp")
        return Principal(name, float(expires) if isinstance(expires, int | float) else None)

    def _allowed(self, name: str) -> bool:
        if self._users is None:
            return True
        return name in self._users or f"@{name.rpartition('@')[2]}" in self._users

    def _introspect(self, token: str) -> Mapping[str, Any]:
        import globus_sdk

        try:
            data = self._client.oauth2_token_introspect(token).data
        except globus_sdk.GlobusAPIError as error:
            if error.http_status < 500:
                raise RelayRefusedError("Globus Auth does not take the token.") from error
            raise RelayUnreachableError("Globus Auth fails; try again.") from error
        except globus_sdk.GlobusError as error:
            raise RelayUnreachableError("Globus Auth cannot be reached; try again.") from error
        return data if isinstance(data, Mapping) else {}


class GlobusCredentials:
    """Shows the relay an access token.

    Args:
        token: The token, or what returns a fresh one; else from `PROXYSTORE_RELAY_TOKEN`.
        client_id: A Globus application to get tokens with instead: with `client_secret` for the
            application itself, without for a person who logged in before.
        client_secret: Secret of a confidential application.
        scope: The relay's scope, needed with `client_id`.
        resource_server: The relay's application, needed with `client_id`.

    Raises:
        EndpointConfigError: If there is neither a token nor an application.
        MissingExtraError: If Globus' library is needed and not installed.
    """

    method = "globus"
    confidential = True

    def __init__(
        self,
        token: str | Callable[[], str] | None = None,
        *,
        client_id: str | None = None,
        client_secret: str | None = None,
        scope: str | None = None,
        resource_server: str | None = None,
    ) -> None:
        token = token or (None if client_id else os.environ.get(TOKEN))
        if callable(token):
            self._token = token
        elif token:
            self._token = lambda: token
        elif client_id and scope and resource_server:
            self._token = _app_tokens(client_id, client_secret, scope, resource_server)
        else:
            raise EndpointConfigError(
                "Globus authentication needs a token (an option, or "
                f"{TOKEN} in the environment), or client_id, scope and resource_server.",
                field="relay.auth",
            )

    async def prove(self, nonce: bytes, uuid: UUID, audience: str) -> Proof:
        """Show the token, renewed where it can be."""
        return Proof(method=self.method, token=await asyncio.to_thread(self._token))


def _app_tokens(
    client_id: str, client_secret: str | None, scope: str, resource_server: str
) -> Callable[[], str]:
    _need_sdk()
    import globus_sdk

    options: dict[str, Any] = {
        "client_id": client_id,
        "scope_requirements": {resource_server: [scope]},
    }
    app: Any
    if client_secret:
        app = globus_sdk.ClientApp("proxystore-relay", client_secret=client_secret, **options)
    else:
        app = globus_sdk.UserApp("proxystore-relay", **options)

    def token() -> str:
        if not client_secret and app.login_required():
            # A daemon has nobody to ask.
            raise RelayRefusedError("Nobody is logged in to Globus here: log in and try again.")
        try:
            header = app.get_authorizer(resource_server).get_authorization_header()
        except globus_sdk.GlobusError as error:
            raise RelayRefusedError(f"Globus gives no token: {error}") from error
        return str(header).removeprefix("Bearer ")

    return token
