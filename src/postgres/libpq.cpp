#include "postgres/libpq.h"

#include "base/library.h"

namespace holdfast::postgres {

namespace {

Libpq load_all() {
  const base::Library library("libpq.so.5", "libpq5");
  Libpq loaded{};
  library.find("PQclear", loaded.PQclear);
  library.find("PQconnectPoll", loaded.PQconnectPoll);
  library.find("PQconnectStartParams", loaded.PQconnectStartParams);
  library.find("PQconnectdbParams", loaded.PQconnectdbParams);
  library.find("PQconninfoFree", loaded.PQconninfoFree);
  library.find("PQconninfoParse", loaded.PQconninfoParse);
  library.find("PQconsumeInput", loaded.PQconsumeInput);
  library.find("PQerrorMessage", loaded.PQerrorMessage);
  library.find("PQexec", loaded.PQexec);
  library.find("PQfinish", loaded.PQfinish);
  library.find("PQflush", loaded.PQflush);
  library.find("PQfreemem", loaded.PQfreemem);
  library.find("PQgetCopyData", loaded.PQgetCopyData);
  library.find("PQgetisnull", loaded.PQgetisnull);
  library.find("PQgetlength", loaded.PQgetlength);
  library.find("PQgetResult", loaded.PQgetResult);
  library.find("PQgetvalue", loaded.PQgetvalue);
  library.find("PQisBusy", loaded.PQisBusy);
  library.find("PQnfields", loaded.PQnfields);
  library.find("PQntuples", loaded.PQntuples);
  library.find("PQpingParams", loaded.PQpingParams);
  library.find("PQputCopyData", loaded.PQputCopyData);
  library.find("PQputCopyEnd", loaded.PQputCopyEnd);
  library.find("PQresultErrorField", loaded.PQresultErrorField);
  library.find("PQresultStatus", loaded.PQresultStatus);
  library.find("PQsendQuery", loaded.PQsendQuery);
  library.find("PQsendQueryParams", loaded.PQsendQueryParams);
  library.find("PQserverVersion", loaded.PQserverVersion);
  library.find("PQsetNoticeReceiver", loaded.PQsetNoticeReceiver);
  library.find("PQsetnonblocking", loaded.PQsetnonblocking);
  library.find("PQsocket", loaded.PQsocket);
  library.find("PQstatus", loaded.PQstatus);
  return loaded;
}

}  // namespace

const Libpq& libpq() {
  static const Libpq loaded = load_all();
  return loaded;
}

}  // namespace holdfast::postgres
