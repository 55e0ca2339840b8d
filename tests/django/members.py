"""A small Django site for the tests of the gateway: a page for everybody, one for members, login and logout.

Knows nothing of the gateway but, if asked, the header that names the user. Logins, sessions and their rotation are
Django's own (django.contrib.auth and django.contrib.sessions). Run as

    python members.py FOLDER [--name-users]

it makes its database in FOLDER, listens on a free port of 127.0.0.1 and prints its address.
"""

import sys
from pathlib import Path

import django
import waitress
from django.conf import settings

FOLDER = Path(sys.argv[1]) if len(sys.argv) > 1 else Path.cwd()
USERS = {"alice": "alice-password", "bob": "bob-password"}

settings.configure(
    SECRET_KEY="for tests alone",
    ALLOWED_HOSTS=["127.0.0.1"],
    ROOT_URLCONF=__name__,
    DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": FOLDER / "members.sqlite3"}},
    INSTALLED_APPS=[
        "django.contrib.admin",
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.messages",
        "django.contrib.sessions",
    ],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
        *([f"{__name__}.name_users"] if "--name-users" in sys.argv else []),
    ],
    TEMPLATES=[
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "OPTIONS": {
                "context_processors": [
                    "django.template.context_processors.request",
                    "django.contrib.auth.context_processors.auth",
                    "django.contrib.messages.context_processors.messages",
                ],
                "loaders": [
                    (
                        "django.template.loaders.locmem.Loader",
                        {
                            "form.html": "<form method=post>{% csrf_token %}{{ form }}<button>Go</button></form>",
                            "home.html": "<p>home of {{ user.username|default:'nobody' }}</p>"
                            "<form method=post action=/logout/>{% csrf_token %}<button>Log out</button></form>",
                        },
                    ),
                    "django.template.loaders.app_directories.Loader",
                ],
            },
        }
    ],
    LOGIN_URL="/login/",
    LOGIN_REDIRECT_URL="/",
    LOGOUT_REDIRECT_URL="/",
    # What a password costs is not what is tested; the default takes most of a second each time.
    PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
)
django.setup()

from django.contrib import admin  # noqa: E402
from django.contrib.auth import get_user_model, views  # noqa: E402
from django.contrib.auth.decorators import login_required  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.http import HttpResponse  # noqa: E402
from django.shortcuts import render  # noqa: E402
from django.urls import path  # noqa: E402


def name_users(get_response):
    """The one change to a site that lets the gateway know its users by name."""

    def middleware(request):
        response = get_response(request)
        response["X-Portcullis-User"] = request.user.get_username()
        return response

    return middleware


def home(request):
    return render(request, "home.html")


def basket(request):
    """Begins a session for whoever comes, as shops do. It must not count as a login."""
    request.session["basket"] = request.session.get("basket", 0) + 1
    return HttpResponse("one more")


@login_required
def page_of_members(request):
    return HttpResponse(f"members only, {request.user.get_username()}")


urlpatterns = [
    path("", home),
    path("basket/", basket),
    path("members/", page_of_members),
    path("login/", views.LoginView.as_view(template_name="form.html")),
    path("logout/", views.LogoutView.as_view()),
    path("password/", views.PasswordChangeView.as_view(template_name="form.html", success_url="/")),
    path("admin/", admin.site.urls),
]


def main():
    call_command("migrate", verbosity=0)
    users = get_user_model().objects
    for name, password in USERS.items():
        users.create_user(name, password=password)
    users.create_superuser("root", password="root-password")
    server = waitress.create_server(get_wsgi_application(), host="127.0.0.1", port=0, threads=8)
    print(f"listening on 127.0.0.1:{server.effective_port}", flush=True)
    server.run()


if __name__ == "__main__":
    # The URLs and the middleware are looked up by the name of this module: once, not as a second copy.
    sys.modules["members"] = sys.modules[__name__]
    main()
