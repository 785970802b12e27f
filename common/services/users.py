"""Users, their passwords and tokens, and who is asking."""

from __future__ import annotations

import re
import secrets
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cache

import argon2
import bcrypt
from sqlalchemy import case, delete, func, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from common import clock
from common.crypto import fingerprint
from common.errors import (
    AwaitingApproval,
    Conflict,
    Forbidden,
    InvalidInput,
    NotFound,
    Unauthenticated,
    WrongCredentials,
)
from common.ids import new_id
from common.models import ApiToken, Auth, User
from common.services import openwebui
from common.words import Role

SESSION_DAYS = 7
NO_PASSWORD = "!"  # what stands in place of a hash where only tokens are used
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+")
_BCRYPT_LIMIT = 72  # bytes; what is behind them would silently not count
_MOST_NAMESAKES = 5  # each costs a comparison of hashes


@dataclass(frozen=True, slots=True)
class Actor:
    """Who is asking."""

    user_id: str
    email: str
    name: str
    role: Role
    token_id: str = ""
    rate_limit: str | None = None  # of the token, beside the user's own

    @property
    def is_admin(self) -> bool:
        return self.role is Role.ADMIN


# ---------------------------------------------------------------- who is asking


def authenticate(session: Session, token: str) -> Actor:
    """The actor behind a Bearer token: one of ours, or a key that Open WebUI gave."""
    row = session.execute(
        select(User, ApiToken.id, ApiToken.expires_at, ApiToken.rate_limit)
        .join(ApiToken, ApiToken.user_id == User.id)
        .where(ApiToken.fingerprint == fingerprint(token))
    ).one_or_none()
    if row is not None:
        user, token_id, expires_at, rate_limit = row
        if expires_at is not None and expires_at <= clock.now():
            raise Unauthenticated("This token has expired; sign in again.")
        return replace(actor_of(user), token_id=token_id, rate_limit=rate_limit)
    legacy = openwebui.owner_of_key(session, token)
    if legacy is None:
        raise Unauthenticated
    return actor_of(legacy)


def actor_of(user: User) -> Actor:
    """The user as an actor. Raises AwaitingApproval for a pending one, whatever the token.

    A role that only a legacy program knows counts as pending.
    """
    role = Role(user.role) if user.role in set(Role) else Role.PENDING
    if role is Role.PENDING:
        raise AwaitingApproval
    return Actor(user.id, user.email or "", user.name or "", role)


@dataclass(frozen=True, slots=True)
class Login:
    """What stands behind an e-mail: the user, or nobody, and the hash that a password has to fit.

    `others`: an Open WebUI before 0.11 may have let several users have the same e-mail.
    """

    user_id: str | None
    password: str
    others: tuple[Login, ...] = ()


def login_of(session: Session, email: str) -> Login:
    """The login of this e-mail, as it is spelt if there are several; an unknown or inactive one is nobody's."""
    same = [
        or_(kept == email, func.lower(kept) == email.lower())  # SQLite's lower() knows only ASCII
        for kept in (Auth.email, User.email)
    ]
    query = select(Auth.id, Auth.password).join(User, User.id == Auth.id).where(or_(*same), Auth.active)
    as_spelt = case((Auth.email == email, 0), else_=1)
    rows = session.execute(query.order_by(as_spelt, Auth.id).limit(_MOST_NAMESAKES)).all()
    found = [Login(row.id, row.password or NO_PASSWORD) for row in rows]
    return replace(found[0], others=tuple(found[1:])) if found else Login(None, NO_PASSWORD)


def check_password(login: Login, password: str) -> str:
    """The id of the user whose password this is. Raises WrongCredentials.

    Slow on purpose, so no transaction should be open. A wrong password and an unknown e-mail take the same time,
    whichever of both hashes a user has: what was not compared is compared with a decoy.
    """
    compared = set()
    for one in (login, *login.others):
        known = _algorithm(one.password)
        if known is not None and known(one.password, password) and one.user_id is not None:
            return one.user_id
        compared.add(known)
    for fits_decoy, decoy in _decoys():
        if fits_decoy not in compared:
            fits_decoy(decoy, password)
    raise WrongCredentials


def begin_session(session: Session, user_id: str) -> tuple[str, datetime, User]:
    """A token that lasts some days, its end, and the user.

    Raises WrongCredentials, AwaitingApproval, and Forbidden where the password alone is not enough.
    """
    user = session.get(User, user_id)
    if user is None:
        raise WrongCredentials
    actor_of(user)
    if openwebui.wants_second_factor(session, user_id):
        raise Forbidden("This account has a second factor, which cannot be given here; use an API key.")
    expires_at = clock.now() + timedelta(days=SESSION_DAYS)
    token, row = _new_token(user.id, "sign-in", expires_at)
    session.add(row)
    return token, expires_at, user


def _algorithm(stored: str) -> Callable[[str, str], bool] | None:
    """How to compare a password with this hash; None for one that no password fits."""
    if stored.startswith("$argon2"):
        return _fits_argon2
    return _fits_bcrypt if stored.startswith("$2") else None


def _fits_argon2(stored: str, password: str) -> bool:
    try:
        return argon2.PasswordHasher().verify(stored, password)
    except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
        return False


def _fits_bcrypt(stored: str, password: str) -> bool:
    try:
        return bcrypt.checkpw(password.encode()[:_BCRYPT_LIMIT], stored.encode())
    except ValueError:
        return False


@cache
def _decoys() -> tuple[tuple[Callable[[str, str], bool], str], ...]:
    """A hash of each kind that nobody has, for those whose own there is none of."""
    password = secrets.token_hex(16)
    return (_fits_bcrypt, _hash(password)), (_fits_argon2, argon2.PasswordHasher().hash(password))


def _hash(password: str) -> str:
    """bcrypt: the one hash that every release of Open WebUI on the same database can check."""
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt()).decode()


# ---------------------------------------------------------------- users


def create_user(
    session: Session, *, email: str, name: str = "", role: Role = Role.USER, password: str | None = None
) -> User:
    """A new user; without a password they can only use tokens. Raises InvalidInput or Conflict."""
    email = _checked_email(email)
    stored = (
        _hash(_checked_password(password)) if password else NO_PASSWORD
    )  # slow, so before the first query
    if session.scalar(select(User.id).where(func.lower(User.email) == email).limit(1)):
        raise Conflict(f"There is already a user with the e-mail {email}.")
    now = int(clock.epoch())
    user = User(
        id=str(uuid.uuid4()),
        name=(name or email.partition("@")[0])[:255],
        email=email,
        role=role,
        profile_image_url="/user.png",
        created_at=now,
        updated_at=now,
        last_active_at=now,
    )
    session.add(user)
    try:
        session.flush()  # first: on a taken-over database a foreign key may lead from `auth` to `user`
    except IntegrityError:  # an index of a newer Open WebUI, and the same e-mail at the same moment
        raise Conflict(f"There is already a user with the e-mail {email}.") from None
    session.add(Auth(id=user.id, email=email, password=stored, active=True))
    session.flush()
    return user


def _checked_email(email: str) -> str:
    email = email.strip().lower()
    if not _EMAIL.fullmatch(email) or len(email) > 255:
        raise InvalidInput("This is not an e-mail address.", param="email")
    return email


def _checked_password(password: str) -> str:
    if len(password) < 8 or len(password.encode()) > _BCRYPT_LIMIT:
        raise InvalidInput("A password has 8 characters to 72 bytes.", param="password")
    return password


def get_user(session: Session, user_id: str) -> User:
    """The user, or NotFound."""
    user = session.get(User, user_id)
    if user is None:
        raise NotFound("There is no such user.")
    return user


def find_user(session: Session, email: str) -> User:
    """The user with this e-mail. Raises NotFound, and Conflict where several have it and none is spelt like it."""
    email = email.strip()
    same = or_(User.email == email, func.lower(User.email) == email.lower())
    found = session.scalars(select(User).where(same).order_by(User.id).limit(_MOST_NAMESAKES)).all()
    if not found:
        raise NotFound(f"There is no user with the e-mail {email}.")
    spelt_so = [user for user in found if user.email == email] or found
    if len(spelt_so) > 1:
        ids = ", ".join(user.id for user in spelt_so)
        raise Conflict(f"Several users have the e-mail {email}: {ids}.")
    return spelt_so[0]


def list_users(session: Session, *, limit: int, after: str | None) -> list[User]:
    """Users, oldest first, from behind the user `after`."""
    created_at = func.coalesce(User.created_at, 0)  # NULL in some of Open WebUI's
    query = select(User).order_by(created_at, User.id).limit(limit)
    if after:
        last = get_user(session, after)
        at = last.created_at or 0
        query = query.where(or_(created_at > at, (created_at == at) & (User.id > last.id)))
    return list(session.scalars(query))


def change_user(
    session: Session, user_id: str, *, name: str | None = None, role: Role | None = None,
    email: str | None = None, password: str | None = None,
) -> User:  # fmt: skip
    """Change what is given. Raises NotFound, InvalidInput or Conflict."""
    stored = (
        _hash(_checked_password(password)) if password is not None else None
    )  # slow, so before the first query
    user = get_user(session, user_id)
    auth = session.get(Auth, user_id)
    if email is not None and _checked_email(email) != (user.email or "").lower():
        email = _checked_email(email)
        if session.scalar(select(User.id).where(func.lower(User.email) == email).limit(1)):
            raise Conflict(f"There is already a user with the e-mail {email}.")
        user.email = email
        if auth is not None:
            auth.email = email
    if name is not None:
        user.name = name[:255]
    if role is not None:
        user.role = role
    if stored is not None and auth is None:
        session.add(Auth(id=user.id, email=user.email or "", password=stored, active=True))
    elif stored is not None and auth is not None:
        auth.password = stored
    user.updated_at = int(clock.epoch())
    session.flush()
    return user


# ---------------------------------------------------------------- tokens


def create_token(
    session: Session, user_id: str, name: str, *, token: str | None = None, rate_limit: str | None = None
) -> tuple[str, ApiToken]:
    """A new token (or the operator's own, `token`): the secret, which is not kept, and its row."""
    secret, row = _new_token(user_id, name, None, token)
    row.rate_limit = rate_limit
    session.add(row)
    session.flush()
    return secret, row


def _new_token(
    user_id: str, name: str, expires_at: datetime | None, token: str | None = None
) -> tuple[str, ApiToken]:
    secret = token or "sk-" + secrets.token_urlsafe(32)
    row = ApiToken(
        id=new_id("tok"),
        user_id=user_id,
        name=name,
        fingerprint=fingerprint(secret),
        expires_at=expires_at,
        created_at=clock.now(),
    )
    return secret, row


def list_tokens(session: Session, user_id: str) -> list[ApiToken]:
    """The user's lasting tokens, newest first (sign-ins are not listed)."""
    query = select(ApiToken).where(ApiToken.user_id == user_id, ApiToken.expires_at.is_(None))
    return list(session.scalars(query.order_by(ApiToken.id.desc()).limit(1000)))


def delete_token(session: Session, user_id: str, token_id: str) -> None:
    """Revoke a token of this user. Raises NotFound."""
    gone = session.execute(
        delete(ApiToken).where(ApiToken.id == token_id, ApiToken.user_id == user_id).returning(ApiToken.id)
    ).one_or_none()
    if gone is None:
        raise NotFound("There is no such token.")


def forget_expired_tokens(session: Session) -> None:
    """Remove sign-ins whose time is over."""
    session.execute(delete(ApiToken).where(ApiToken.expires_at < clock.now()))
