// A job on pgjdbc: server-side prepared statements, batches, a fetch size, COPY both ways, a savepoint, a cancelled statement.
import java.io.StringReader;
import java.io.StringWriter;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Savepoint;
import java.sql.Statement;
import java.util.Properties;
import org.postgresql.PGConnection;
import org.postgresql.copy.CopyManager;

public class Job {
  public static void main(String[] arguments) throws Exception {
    Properties properties = new Properties();
    properties.setProperty("user", System.getenv("PGUSER"));
    properties.setProperty("password", System.getenv("PGPASSWORD"));
    properties.setProperty("sslmode", "verify-full");
    properties.setProperty("sslrootcert", System.getenv("CA"));
    try (Connection connection = DriverManager.getConnection(System.getenv("JDBC_URL"), properties)) {
      try (Statement statement = connection.createStatement()) {
        statement.execute("create temp table lines (id int, item text)");
      }
      connection.setAutoCommit(false);
      try (PreparedStatement insert = connection.prepareStatement("insert into lines values (?, ?)")) {
        for (int n = 0; n < 500; n++) {
          insert.setInt(1, n);
          insert.setString(2, "item " + n);
          insert.addBatch();
        }
        check(insert.executeBatch().length == 500, "the batch");
      }
      CopyManager copy = connection.unwrap(PGConnection.class).getCopyAPI();
      check(copy.copyIn("copy lines from stdin", new StringReader("501\tcopied\n502\tcopied\n")) == 2, "COPY in");
      StringWriter out = new StringWriter();
      check(copy.copyOut("copy lines to stdout", out) == 502, "COPY out");
      try (Statement statement = connection.createStatement()) {
        statement.setFetchSize(100);
        int rows = 0;
        try (ResultSet result = statement.executeQuery("select * from lines order by id")) {
          while (result.next()) rows++;
        }
        check(rows == 502, "rows by portals");
      }
      Savepoint savepoint = connection.setSavepoint("before");
      try (Statement statement = connection.createStatement()) {
        statement.execute("select 1 / (g - 1) from generate_series(1, 1) g");
        check(false, "a division by zero");
      } catch (SQLException error) {
        check(error.getSQLState().equals("22012"), error.getSQLState());
        connection.rollback(savepoint);
      }
      connection.commit();
      connection.setAutoCommit(true);
      try (PreparedStatement select = connection.prepareStatement("select ?::int * 2")) {
        for (int n = 0; n < 12; n++) {
          select.setInt(1, n);
          try (ResultSet result = select.executeQuery()) {
            result.next();
            check(result.getInt(1) == n * 2, "a prepared statement");
          }
        }
      }
      try (Statement statement = connection.createStatement()) {
        statement.setQueryTimeout(1);
        statement.execute("select pg_sleep(60)");
        check(false, "the timeout");
      } catch (SQLException error) {
        check(error.getSQLState().equals("57014"), error.getSQLState());
      }
    }
    System.out.println("done");
  }

  private static void check(boolean holds, String what) {
    if (!holds) throw new IllegalStateException(what);
  }
}
