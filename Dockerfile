# A CPU image with both twins; data and runs are in the folder that is mounted:
#   docker build -t seqssvae . && docker run --rm -v "$PWD:/work" seqssvae fit --data.train rows.tsv --output RUN
FROM python:3.11-slim
WORKDIR /src
COPY . .
RUN pip install --no-cache-dir -c constraints.txt torch && pip install --no-cache-dir -c constraints.txt '.[all,arrow,report,tune]'
WORKDIR /work
ENTRYPOINT ["seqssvae"]
