# The service alone, as an ordinary user.
FROM python:3.13-slim
WORKDIR /srv/poolbench
COPY requirements.txt .
RUN pip install --no-cache-dir -r requirements.txt
COPY pyproject.toml README.md LICENSE app.py ./
COPY db ./db
COPY wsgi ./wsgi
RUN useradd --uid 10001 --no-create-home poolbench
USER 10001
EXPOSE 8000
CMD ["gunicorn", "-c", "wsgi/gunicorn_conf.py", "wsgi:create_app()"]
